"""The command that gets a data set."""

from typing import Annotated

import typer

from verger.cli import console
from verger.errors import UsageError

DATASET = "fruits-360"

Dataset = Annotated[str, typer.Argument(help=f"{DATASET} is the only one.")]
Folder = Annotated[str, typer.Argument(help="Where the images go.", metavar="DIR")]
From = Annotated[
    str | None,
    typer.Option(
        "--from", help="A URL or a zip file, such as one from Kaggle. Default: the published zip."
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start over, though the folder may be complete.")
]


def fetch(dataset: Dataset, folder: Folder, source: From = None, fresh: Fresh = False) -> None:
    """Download, check and unpack Fruits-360; give it again to go on."""
    from verger.datasets import download, fruits360

    if dataset != DATASET:
        raise UsageError(f"There is no data set {dataset!r}.", f"Write {DATASET}.")
    with console.progress() as shown:
        found = fruits360.fetch(
            folder,
            download.PUBLISHED if source is None else source,
            fresh=fresh,
            progress=shown,
        )
    for line in (
        f"{folder} holds {found.release}.",
        f"{found.images:,} images in {found.classes:,} classes, in {', '.join(found.folders)}",
        f"Credit: {fruits360.CREDIT}",
    ):
        console.say(line)
