"""The commands that run the chain."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from verger.cli import console
from verger.cli.options import Debug, Json, Language, with_settings
from verger.cli.reporting import reporting
from verger.errors import UsageError
from verger.settings import RunSettings, make_settings, options_for

IMAGES = 1200
"""Of a demo."""


@with_settings()
def run(settings: RunSettings, *, json: Json = False, debug: Debug = False) -> None:
    """Turn a folder of images into features and a PCA matrix; give it again to go on or add."""
    run_chain(settings, as_json=json, debug=debug)


@with_settings(name for name in options_for() if name not in {"components", "keep_pca"})
def transform(
    settings: RunSettings,
    *,
    model: Annotated[
        str, typer.Option(help="The OUTPUT of an earlier run, or the model/ folder in it.")
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Project the images of another folder through the PCA of an earlier run."""
    given = settings.model_dump(exclude_defaults=True)
    run_chain(make_settings(**given, model=model), as_json=json, debug=debug)


def demo(
    folder: Annotated[Path, typer.Argument(help="Where images and results go.")] = Path("demo"),
    *,
    images: Annotated[
        int | None, typer.Option(help=f"How many photographs are rendered. Default: {IMAGES}.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same photographs.")] = 0,
    lang: Language = "en",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Render photographs of fruit and run the whole chain on them."""
    with reporting(debug):
        from verger.datasets.demo import number_of_demo_images, write_demo_images

        photographs, unfinished = folder / "images", folder / "images.partial"
        if not photographs.exists():
            # An interrupted call leaves none that the next would take for all.
            shutil.rmtree(unfinished, ignore_errors=True)
            with console.progress() as shown:
                write_demo_images(unfinished, images=images or IMAGES, seed=seed, progress=shown)
            unfinished.rename(photographs)
        elif images is not None:
            had = sum(1 for _ in photographs.glob("*/*"))
            if had != number_of_demo_images(images):
                raise UsageError(
                    f"{photographs} has {had:,} photographs, of an earlier demo.",
                    "Leave out --images, or give another folder.",
                )
        settings = make_settings(input=str(photographs), output=str(folder / "output"), lang=lang)
        run_chain(settings, as_json=json, debug=debug)


def run_chain(settings: RunSettings, *, as_json: bool, debug: bool) -> None:
    """Run the chain, and show its result."""
    from verger.chain import run as run_all
    from verger.cli.summary import show_summary
    from verger.output.layout import Output

    with console.progress() as shown:
        manifest = run_all(settings, shown, debug=debug)
    if as_json:
        console.write_json(manifest)
    else:
        show_summary(manifest, Output(settings.output), settings.lang)
