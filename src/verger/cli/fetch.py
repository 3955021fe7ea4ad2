"""The command that gets a data set."""

from typing import Annotated

import typer

from verger.cli import console
from verger.cli.options import Debug, Fresh
from verger.cli.reporting import reporting
from verger.errors import UsageError

DATASET = "fruits-360"


def fetch(
    dataset: Annotated[str, typer.Argument(help=f"{DATASET} is the only one.")],
    folder: Annotated[str, typer.Argument(help="Where the images go.", metavar="DIR")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="A URL or a zip file, such as one from Kaggle. Default: the published zip.",
        ),
    ] = None,
    fresh: Fresh = False,
    debug: Debug = False,
) -> None:
    """Download, check and unpack Fruits-360; give it again to go on."""
    with reporting(debug):
        from verger.datasets import download, fruits360

        if dataset != DATASET:
            raise UsageError(f"There is no data set {dataset!r}.", f"Write {DATASET}.")
        with console.progress() as shown:
            fetched = fruits360.fetch(
                folder,
                download.PUBLISHED if source is None else source,
                fresh=fresh,
                progress=shown,
            )
        counts = f"{fetched.images:,} images in {fetched.classes:,} classes"
        console.say(f"{folder} holds {fetched.release}.")
        console.say(f"{counts}, in {', '.join(fetched.folders)}")
        console.say(f"Credit: {fruits360.CREDIT}")
