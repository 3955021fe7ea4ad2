"""The command that packs many small images into a few files without their metadata."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from verger.cli import console
from verger.cli.options import Debug, Fresh, Input, Json, LabelFrom
from verger.cli.reporting import reporting
from verger.settings import MAX_IMAGE_PIXELS

if TYPE_CHECKING:
    from verger.packs.format import Pack
    from verger.store.location import Location

MEBIBYTE = 2**20


def pack(
    source: Input,
    target: Annotated[str, typer.Argument(help="Where the shards go.", metavar="OUTPUT")],
    *,
    label_from: LabelFrom = "parent",
    shard_size: Annotated[int, typer.Option(help="MiB of images in a shard.", min=1)] = 128,
    threads: Annotated[int, typer.Option(help="Files that are read at once.", min=1)] = 16,
    max_pixels: Annotated[
        int, typer.Option(help="The largest image, width x height.", min=1)
    ] = MAX_IMAGE_PIXELS,
    fresh: Fresh = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Pack images into Parquet files, without metadata; give it again to go on or add."""
    with reporting(debug):
        from verger.datasets import packing
        from verger.store.location import Location

        folder = Location.parse(target)
        with console.progress() as shown:
            packed = packing.pack(
                Location.parse(source),
                folder,
                label_from=label_from,
                shard_bytes=shard_size * MEBIBYTE,
                threads=threads,
                fresh=fresh,
                max_pixels=max_pixels,
                progress=shown,
            )
        if json:
            console.write_json(packed)
        else:
            show_pack(packed, folder)


def show_pack(packed: "Pack", folder: "Location") -> None:
    """Print what was packed, and what that saves."""
    from verger.datasets.packing import requests_saved

    refused = sum(packed.refused.values())
    images = f"{packed.images:,} listed: {packed.images - refused:,} packed, {refused:,} refused"
    if refused:
        reasons = (f"{number:,} {reason}" for reason, number in packed.refused.items())
        images += f" ({', '.join(reasons)})"
    table = console.table()
    table.add_row("Images", images)
    before, after = _size(packed.bytes_before), _size(packed.bytes_after)
    table.add_row("Size", f"{before} before, {after} without metadata")
    table.add_row("Saves", f"about {requests_saved(packed):,} GET requests a run on S3")
    table.add_row("Shards", Text(f"{len(packed.shards):,} in {folder}"))
    console.stdout.print(table)


def _size(count: int) -> str:
    """Bytes as a person reads them."""
    if count < MEBIBYTE:
        return f"{count / 1024:,.0f} KiB"
    return f"{count / MEBIBYTE:,.1f} MiB"
