"""The command that answers phones."""

import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from verger.cli import console
from verger.cli.options import Debug, Made
from verger.cli.reporting import reporting


def serve(
    folder: Made,
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 8000,
    certificate: Annotated[Path | None, typer.Option(help="For TLS: a PEM file.")] = None,
    key: Annotated[Path | None, typer.Option(help="For TLS: its key, a PEM file.")] = None,
    proxy: Annotated[
        bool, typer.Option("--proxy", help="A proxy on this machine does TLS.")
    ] = False,
    corrections: Annotated[
        str | None, typer.Option(help="Where photographs go whose sender corrects and agrees.")
    ] = None,
    on_phone: Annotated[
        bool, typer.Option("--on-phone", help="Phones may compute themselves; needs verger[onnx].")
    ] = False,
    max_megabytes: Annotated[int, typer.Option(help="The largest photograph.", min=1)] = 10,
    max_megapixels: Annotated[int, typer.Option(help="Likewise, width x height.", min=1)] = 50,
    seconds: Annotated[float, typer.Option(help="What an answer may take.", min=0.1)] = 10.0,
    queue: Annotated[int, typer.Option(help="Photographs that may wait.", min=0)] = 16,
    debug: Debug = False,
) -> None:
    """Serve a page for the phone: photograph a fruit, learn what it is. Ctrl-C ends it."""
    with reporting(debug):
        from verger.errors import UsageError
        from verger.output.layout import Output
        from verger.recognise.export_onnx import export_onnx
        from verger.recognise.photo import open_recogniser
        from verger.recognise.server import serving
        from verger.recognise.server.app import make_app
        from verger.recognise.server.corrections import check_labels
        from verger.recognise.server.desk import Desk
        from verger.recognise.server.pages import OnPhone
        from verger.store.location import Location

        if (certificate is None) != (key is None):
            raise UsageError("--certificate and --key go together.", "Give both, or neither.")
        output = Output(Location.parse(folder))
        recogniser, photographer = open_recogniser(output, max_megapixels * 10**6)
        if corrections:
            check_labels(recogniser.labels)
        kept = Location.parse(corrections) if corrections else None
        desk = Desk(recogniser, photographer, queue=queue, seconds=seconds)
        given = OnPhone(export_onnx(recogniser, photographer)[0]) if on_phone else None
        app = make_app(
            output, desk, max_bytes=max_megabytes * 2**20, corrections=kept, on_phone=given
        )
        scheme = "https" if certificate else "http"
        shown = f"[{host}]" if ":" in host else host
        console.say(f"{scheme}://{shown}:{port}/ (Ctrl-C ends it)")
        if not certificate and not proxy and not _is_loopback(host):
            console.stderr.print(
                "Without TLS anybody on this network can see the photographs, and the page cannot "
                "be installed. Give --certificate and --key."
            )
        serving.serve(
            app, desk, host=host, port=port, certificate=certificate, key=key, proxy=proxy
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
