"""The command that makes the first, small run in an account."""

from pathlib import Path
from typing import Annotated

import typer

from verger.cli import console
from verger.cli.options import Arch, Debug, Region
from verger.cli.reporting import reporting
from verger.progress import TIME


def smoke(
    *,
    region: Region = None,
    arch: Arch = "arm64",
    max_cost: Annotated[float, typer.Option(help="The ceiling in euros.", min=0.01)] = 0.5,
    transcript: Annotated[
        Path, typer.Option(help="Where it is written down, without numbers of accounts.")
    ] = Path("verger-smoke.txt"),
    debug: Debug = False,
) -> None:
    """Run 200 rendered images on a cluster of one worker, compare, and remove everything.

    It takes about a quarter of an hour and should cost less than 0.15 EUR.
    """
    with reporting(debug):
        from verger import chain
        from verger.cloud.jobs.smoke import Smoke, Transcript
        from verger.cloud.jobs.smoke import smoke as run_smoke
        from verger.store.session import make_session
        from verger.version import VERSION

        session = make_session(region)
        wanted = Smoke(session.region_name, arch=arch, max_cost=max_cost, time=TIME)
        with console.progress() as shown:
            kept = Transcript(shown, TIME)
            kept.note(f"verger {VERSION}, {wanted.region}, {wanted.arch}, {TIME.now():%Y-%m-%d}")
            try:
                done = run_smoke(session, wanted, chain.run, kept)
            finally:
                transcript.write_text("\n".join(kept.lines) + "\n", encoding="utf-8")
        console.say(
            f"{done.images} images on a cluster give what they give here. {transcript} has it all; "
            "send it to the project, which has no recorded run yet."
        )
