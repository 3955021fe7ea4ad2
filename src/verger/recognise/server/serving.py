"""The server itself: uvicorn, which ends connections that send nothing."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from verger.errors import SetupError, UsageError
from verger.recognise.server.desk import Desk

CONNECTIONS = 256
"""At once; more are answered with 503."""


class ImpatientProtocol(H11Protocol):
    """Closes a connection on which the head of a request does not arrive, be it the first or not.

    uvicorn itself gives up those alone on which nothing at all comes after an answer.
    """

    seconds = 10.0
    """In which it must arrive, from the connection or the last answer on."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self._be_patient()

    def on_response_complete(self) -> None:
        """Start it anew."""
        super().on_response_complete()
        self._be_patient()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        if self._patience:
            self._patience.cancel()
        super().connection_lost(exc)

    def _be_patient(self) -> None:
        if self._patience:
            self._patience.cancel()
        self._patience = self.loop.call_later(self.seconds, self._give_up)

    def _give_up(self) -> None:
        # A request that has come has a cycle; its body has a limit of its own.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def serve(
    app: Starlette,
    desk: Desk,
    *,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    proxy: bool,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        app: what answers.
        desk: whose workers are started first; its patience is that for the head of a request, too.
        host: the address of this machine on which to listen.
        port: likewise.
        certificate: a PEM file for TLS; None for none.
        key: of the certificate.
        proxy: whether a proxy on this machine says for whom it asks.

    Raises:
        UsageError: the certificate cannot be used.
        SetupError: the port is taken, or the workers cannot start.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=type("Protocol", (ImpatientProtocol,), {"seconds": desk.seconds}),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=proxy,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"The certificate {certificate} with the key {key} cannot be used: {error}",
            "Give --certificate and --key as PEM files.",
        ) from error
    desk.warm_up()  # not in the app: uvicorn would only say that it has not started
    try:
        # It stops in good order, then has Python raise what stopped it.
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run()
    except SystemExit as error:
        if error.code:
            raise SetupError(
                f"The server cannot listen on {host} port {port}.",
                "Another program may have the port: give --port.",
            ) from error
