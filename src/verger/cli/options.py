"""Options that several commands share, each declared once; settings are options by themselves."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from verger.cli.reporting import reporting
from verger.settings import RunSettings, check_network, make_settings, options_for, traits_of

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Spark's log.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Input = Annotated[
    str, typer.Argument(help="A folder of images, or s3://bucket/prefix.", metavar="INPUT")
]
OutputFolder = Annotated[str, typer.Argument(help="Where the results go.")]
Made = Annotated[str, typer.Argument(help="The output of a run.", metavar="OUTPUT")]
In = Annotated[str, typer.Option("--in", help="The output of a run, whose recogniser answers.")]
Source = Annotated[str, typer.Option("--input", help="s3://bucket/prefix of the images.")]
Target = Annotated[str, typer.Option("--output", help="s3://bucket/prefix for the results.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete what is there, and start over.")]
LabelFrom = Annotated[
    str, typer.Option(help=str(RunSettings.model_fields["label_from"].description))
]
Language = Annotated[
    Literal["en", "fr"], typer.Option("--lang", help="Language of page and summary.")
]
Arch = Annotated[
    Literal["arm64", "x86_64"], typer.Option(help="Processors: arm64 (Graviton) or x86_64.")
]
MaxCost = Annotated[float, typer.Option(help="The ceiling in euros.", min=0.01)]
Workers = Annotated[int | None, typer.Option(help="Machines besides the primary one.", min=1)]
Spot = Annotated[
    bool, typer.Option("--spot", help="All workers but one on spot machines, if there are.")
]
Region = Annotated[
    str | None, typer.Option(help="A region inside the European Union. Default: AWS_REGION.")
]


def _check_network(name: str) -> str:
    try:
        return check_network(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Network = Annotated[str, typer.Option(help="As for `run`.", callback=_check_network)]

TUNING = "Tuning and limits"


def with_settings(
    names: Iterable[str] = options_for(), *, on_s3: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command input, output and the options of some settings.

    The command is called with `settings`, which are valid, and with the values of its own
    parameters. What it raises is reported; it has `--debug` for that, also where it has no such
    parameter.

    Args:
        names: fields of `RunSettings`.
        on_s3: input and output are options, and places on S3.
    """
    names = [*names]
    if on_s3:
        places = [_parameter("source", Source), _parameter("output", Target)]
    else:
        places = [_parameter("input", Input), _parameter("output", OutputFolder)]
    shared = [_option(name) for name in names]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(command).parameters.items()
            if name not in {"settings", "debug"}
        ]
        wants_debug = "debug" in inspect.signature(command).parameters

        @wraps(command)
        def called(**values: Any) -> None:
            debug = values.pop("debug")
            if wants_debug:
                values["debug"] = debug
            with reporting(debug):
                given = {name: values.pop(name) for name in names}
                given["input"] = values.pop("source" if on_s3 else "input")
                given["output"] = values.pop("output")
                command(settings=make_settings(**given), **values)

        parameters = [*places, *own, *shared, _parameter("debug", Debug, False)]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in parameters}
        return called

    return decorate


def _parameter(
    name: str, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def _option(name: str) -> inspect.Parameter:
    """A setting as Typer wants it; its bounds are checked by the settings alone."""
    field = RunSettings.model_fields[name]
    traits = traits_of(field)
    flag = [f"--{name.replace('_', '-')}"] if field.annotation is bool else []
    panel = TUNING if traits["tuning"] else None
    option = typer.Option(*flag, help=field.description, rich_help_panel=panel)
    return _parameter(name, Annotated[_type(field), option], traits["shown"] or field.default)


def _type(field: FieldInfo) -> Any:
    """What Typer reads: what is more than a number or a choice is text for the settings."""
    kinds = {bool, int, float}
    if field.annotation in kinds and not traits_of(field)["shown"]:
        return field.annotation
    if get_origin(field.annotation) is Literal:
        return field.annotation
    inner = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    kind = inner[0] if len(inner) == 1 and inner[0] in kinds else str
    return kind | None if field.default is None else kind
