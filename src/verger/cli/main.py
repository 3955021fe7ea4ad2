"""The commands. Spark and TensorFlow are loaded by the command that needs them, not before."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verger.cli import console
from verger.cli import explore as exploring
from verger.cli import fetch as fetching
from verger.cli import pack as packing
from verger.cli import report as reports
from verger.cli.cloud_run import cloud_app
from verger.cli.reporting import reporting
from verger.errors import UsageError
from verger.version import VERSION

if TYPE_CHECKING:
    from verger.settings import RunSettings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pictures of fruit in, a matrix out: MobileNetV2 features and exact PCA on Spark.",
)

app.add_typer(cloud_app, name="cloud")

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Spark's log.")]
Json = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON, for scripts.")]


Input = Annotated[str, typer.Argument(help="A folder of images, or s3://bucket/prefix.")]
OutputFolder = Annotated[str, typer.Argument(help="Where the results go.")]
Limit = Annotated[int | None, typer.Option(help="Take the first N files only.")]
LabelFrom = Annotated[
    str, typer.Option(help="parent, none, or a regular expression with one group.")
]
WeightsOption = Annotated[str, typer.Option(help="bundled, keras, or a Keras .weights.h5 file.")]
EngineOption = Annotated[str, typer.Option(help="openvino or tensorflow.")]
Precision = Annotated[str, typer.Option(help="f32 or bf16.")]
MaxRejected = Annotated[str, typer.Option(help="Share of images that may be rejected.")]
Master = Annotated[str | None, typer.Option(help="Spark's master URL. Default: this machine.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete an old result first.")]
Prune = Annotated[bool, typer.Option("--prune", help="Delete rows of images that have gone.")]
RetryRejected = Annotated[bool, typer.Option("--retry-rejected", help="Try rejected images again.")]
Rebase = Annotated[
    bool, typer.Option("--rebase", help="INPUT is the same tree as before, at another place.")
]
Retain = Annotated[
    int, typer.Option(min=0, help="Hours to keep what was replaced, for those who read the table.")
]
CompactFiles = Annotated[
    int, typer.Option(min=1, help="Small files of the table that are left; more are merged.")
]
WaveSize = Annotated[int, typer.Option(help="Images committed together.")]
Deadline = Annotated[
    str | None, typer.Option(help="Stop after the wave at work, such as 2026-12-24T18:00:00Z.")
]
DriverMemory = Annotated[str, typer.Option(help="Memory of Spark's Java machine.")]


@app.command()
def run(
    input: Input,
    output: OutputFolder,
    components: Annotated[
        str | None,
        typer.Option(help="A count (50), or a share of the variance (0.95). Default: 50."),
    ] = None,
    limit: Limit = None,
    label_from: LabelFrom = "parent",
    weights: WeightsOption = "bundled",
    engine: EngineOption = "openvino",
    precision: Precision = "f32",
    max_rejected: MaxRejected = "1%",
    master: Master = None,
    fresh: Fresh = False,
    prune: Prune = False,
    retry_rejected: RetryRejected = False,
    keep_pca: Annotated[
        bool, typer.Option("--keep-pca", help="Project through the PCA that OUTPUT has.")
    ] = False,
    rebase: Rebase = False,
    retain: Retain = 0,
    compact_files: CompactFiles = 32,
    wave_size: WaveSize = 8192,
    driver_memory: DriverMemory = "2g",
    deadline: Deadline = None,
    lang: reports.Language = "en",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Turn a folder of images into features and a PCA matrix; give it again to go on or add."""
    options = dict(locals())
    with reporting(debug):
        run_chain(options)


@app.command()
def transform(
    input: Input,
    output: OutputFolder,
    model: Annotated[
        str, typer.Option(help="The OUTPUT of an earlier run, or the model/ folder in it.")
    ],
    limit: Limit = None,
    label_from: LabelFrom = "parent",
    weights: WeightsOption = "bundled",
    engine: EngineOption = "openvino",
    precision: Precision = "f32",
    max_rejected: MaxRejected = "1%",
    master: Master = None,
    fresh: Fresh = False,
    prune: Prune = False,
    retry_rejected: RetryRejected = False,
    rebase: Rebase = False,
    retain: Retain = 0,
    compact_files: CompactFiles = 32,
    wave_size: WaveSize = 8192,
    driver_memory: DriverMemory = "2g",
    deadline: Deadline = None,
    lang: reports.Language = "en",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Project the images of another folder through the PCA of an earlier run."""
    options = dict(locals())
    with reporting(debug):
        run_chain(options)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where images and results go.")] = Path("demo"),
    images: Annotated[int, typer.Option(help="How many photographs are rendered.")] = 1200,
    seed: Annotated[int, typer.Option(help="The same seed gives the same photographs.")] = 0,
    lang: reports.Language = "en",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Render photographs of fruit and run the whole chain on them."""
    with reporting(debug):
        from verger.datasets.demo import write_demo_images

        photographs = folder / "images"
        if not photographs.exists():
            with console.progress() as shown:
                shown.start("demo", images)
                write_demo_images(
                    photographs,
                    images=images,
                    seed=seed,
                    on_image=lambda done, _: shown.update(done),
                )
                shown.finish()
        run_chain(
            {
                "input": str(photographs),
                "output": str(folder / "output"),
                "lang": lang,
                "json": json,
                "debug": debug,
            }
        )


@app.command()
def fetch(
    dataset: fetching.Dataset,
    folder: fetching.Folder,
    source: fetching.From = None,
    fresh: fetching.Fresh = False,
    debug: Debug = False,
) -> None:
    """Download, check and unpack Fruits-360; give it again to go on."""
    with reporting(debug):
        fetching.fetch(dataset, folder, source, fresh)


@app.command()
def pack(
    source: packing.Source,
    target: packing.Target,
    label_from: packing.LabelFrom = "parent",
    shard_size: packing.ShardSize = 128,
    threads: packing.Threads = 16,
    fresh: packing.Fresh = False,
    json: packing.Json = False,
    debug: Debug = False,
) -> None:
    """Pack images into Parquet files, without metadata; give it again to go on or add."""
    with reporting(debug):
        packing.pack(
            source,
            target,
            label_from=label_from,
            shard_size=shard_size,
            threads=threads,
            fresh=fresh,
            json=json,
        )


@app.command()
def report(output: reports.Folder, language: reports.Language = "en", debug: Debug = False) -> None:
    """Write the page that shows an output: report.html, one file."""
    with reporting(debug):
        reports.report(output, language)


@app.command()
def explore(output: exploring.Folder, port: exploring.Port = 0, debug: Debug = False) -> None:
    """Show the map of all images in the browser, with a viewer of its own."""
    with reporting(debug):
        exploring.explore(output, port)


@app.command()
def doctor(json: Json = False, debug: Debug = False) -> None:
    """Say what is found of Java, Spark, engines, weights and memory."""
    with reporting(debug):
        from verger.cli.doctor import examine, show

        with console.stage("doctor"):
            findings = examine()
        show(findings, as_json=json)
        if any(finding.needed and not finding.ok for finding in findings):
            raise typer.Exit(5)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        console.stdout.print(f"verger {VERSION}", highlight=False)
        raise typer.Exit


def make_settings(**options: Any) -> "RunSettings":
    """Validate the options.

    Raises:
        UsageError: one of them is wrong; it names the option.
    """
    from pydantic import ValidationError

    from verger.settings import RunSettings

    try:
        return RunSettings(**options)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise UsageError(f"{message}.") from error
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"{option}: {message} (got {first['input']!r}).") from error


def run_chain(options: dict[str, Any]) -> None:
    """Run the chain with the options of a command and show what came of it."""
    as_json, debug = options.pop("json"), options.pop("debug")
    settings = make_settings(**options)

    from verger.chain import run as run_pipeline
    from verger.cli.summary import show_summary
    from verger.output.layout import Output

    with console.progress() as shown:
        manifest = run_pipeline(settings, shown, debug=debug)
    if as_json:
        console.write_json(manifest)
    else:
        show_summary(manifest, Output(settings.output), settings.lang)


def main() -> None:
    """Run the command line."""
    app()
