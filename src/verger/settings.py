"""What a command is to do: one validated, frozen object."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from typing_extensions import Self

from verger.errors import UsageError
from verger.networks.registry import KERAS, NETWORKS
from verger.store.location import Location

DEFAULT_COMPONENTS = 50
MAX_FILE_BYTES = 256 * 2**20
"""The largest file that is read whole."""

MAX_IMAGE_PIXELS = 89_478_485
"""Pillow's own limit against decompression bombs: a quarter of a GiB in RGB."""


MOST_VIEWS = 6
"""All of an image, and the middle three quarters and half of it, each with its mirror image."""


def parse_components(value: object) -> object:
    """Read `50` as a count of components and `0.95` or `1.0` as a share of the variance."""
    if isinstance(value, bool):
        raise ValueError("components: a count or a share, not a yes or no")  # noqa: TRY004
    if isinstance(value, str):
        try:
            return int(value) if re.fullmatch(r"\d+", value.strip()) else float(value)
        except ValueError:
            raise ValueError(
                "a count such as 50, or a share of the variance such as 0.95"
            ) from None
    return value


def parse_share(value: object) -> object:
    """Read `1%` or `0.01` as a share."""
    if isinstance(value, str):
        text = value.strip()
        try:
            return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
        except ValueError:
            raise ValueError("a share such as 1% or 0.01") from None
    return value


ParsedLocation = Annotated[
    Location,
    BeforeValidator(lambda value: Location.parse(value) if isinstance(value, str) else value),
    PlainSerializer(str),
]
Components = Annotated[int | float | None, BeforeValidator(parse_components)]


def check_remote(value: str) -> str:
    """Take `sc://host`, `sc://host:port` and what PySpark lets follow (`/;token=...`)."""
    if not re.match(r"sc://[^/;:\s]+(:\d+)?(/(;.*)?)?$", value):
        raise ValueError("an address of a Spark Connect server, such as sc://host:15002")
    return value


def check_network(value: str) -> str:
    """Take the name of a network that there is."""
    if value not in NETWORKS and not re.fullmatch(rf"{KERAS}\w+", value):
        raise ValueError(f"{', '.join(NETWORKS)} or {KERAS}NAME, such as {KERAS}ResNet50")
    return value


def without_secrets(remote: str | None) -> str:
    """An address of Spark Connect without its parameters, of which one may be a token."""
    return (remote or "").partition(";")[0].rstrip("/")


Remote = Annotated[
    Annotated[str, AfterValidator(check_remote)] | None,
    PlainSerializer(without_secrets, when_used="json-unless-none"),
]
Share = Annotated[float, BeforeValidator(parse_share), Field(ge=0, le=1)]


def option(
    default: Any,
    text: str,
    *,
    shown: str = "",
    tuning: bool = False,
    cluster: bool = True,
    notebook: bool = False,
    **bounds: Any,
) -> Any:
    """A setting that is an option of the command line, under its own name.

    Args:
        default: its value where it is not given.
        text: what it is, for the help of the command line.
        shown: the default as it is written there, where that differs.
        tuning: show it in a group of its own, below the others.
        cluster: `verger cloud run` has it too, and passes it on; False for what is of one machine.
        notebook: `verger cloud notebook` has it too, and gives it to the notebook as a parameter.
        bounds: `ge`, `gt`, `le` and `allow_inf_nan` of pydantic's fields.
    """
    traits: Any = {"shown": shown, "tuning": tuning, "cluster": cluster, "notebook": notebook}
    return Field(default, description=text, json_schema_extra=traits, **bounds)


class RunSettings(BaseModel):
    """The settings of `verger run`; each field but the places is an option of the same name.

    Commands, what a cluster is passed and what a notebook is given are derived from these fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    input: ParsedLocation
    output: ParsedLocation
    model: ParsedLocation | None = None
    """Project through the PCA of this output (or `model/` folder), instead of fitting one."""
    components: Components = option(
        None, "A count (50), or a share of the variance (0.95). Default: 50.", notebook=True
    )
    limit: int | None = option(None, "Take the first N files only.", ge=1, notebook=True)
    label_from: str = option("parent", "parent, none, or a regular expression with one group.")
    network: Annotated[str, AfterValidator(check_network)] = option(
        "mobilenet_v2", "mobilenet_v2, efficientnet_lite2, both with a + between, or keras:NAME."
    )
    weights: str = option("bundled", "bundled, keras, or a Keras .weights.h5 file.", cluster=False)
    engine: Literal["openvino", "tensorflow"] = option(
        "openvino", "What runs the network.", cluster=False
    )
    precision: Literal["f32", "bf16"] = option(
        "f32", "Of the network; bf16 is OpenVINO's.", cluster=False
    )
    exact_decoding: bool = option(False, "Decode large JPEGs in full, which takes long.")
    views: int = option(
        1,
        "Views of each image, 1 to 6: more recognise better, and take longer.",
        ge=1,
        le=MOST_VIEWS,
    )
    max_rejected: Share = option(0.01, "Share of images that may be rejected.", shown="1%")
    accept_truncated: bool = option(False, "Take what can be decoded of files that were cut.")
    master: str | None = option(None, "Spark's master URL. Default: this machine.", cluster=False)
    remote: Remote = option(None, "A Spark Connect server: sc://host:15002.", cluster=False)
    fresh: bool = option(False, "Delete an old result first.")
    prune: bool = option(False, "Delete rows of images that have gone.")
    retry_rejected: bool = option(False, "Try rejected images again.")
    keep_pca: bool = option(False, "Project through the PCA that OUTPUT has.")
    rebase: bool = option(False, "INPUT is the same tree as before, at another place.")
    """Images are told apart by their sizes alone then."""
    retain: int = option(0, "Hours to keep what was replaced, for those who read the table.", ge=0)
    """With `prune` it goes at once."""
    deadline: AwareDatetime | None = option(
        None, "Stop after the wave at work, such as 2026-12-24T18:00:00Z.", cluster=False
    )
    """The same command goes on from there."""
    lang: Literal["en", "fr"] = option("en", "Language of page and summary.")
    csv_dialect: Literal["standard", "excel-fr"] = option(
        "standard", "Of the matrix; excel-fr has semicolons and decimal commas."
    )
    credit: str | None = option(None, "Whose images these are, for the page.")
    wave_size: int = option(
        8192, "Images committed together: what a kill can cost.", ge=1, tuning=True
    )
    task_size: int = option(512, "Images in a task of Spark, at most.", ge=1, tuning=True)
    read_ahead: int = option(16, "Files that a worker reads at once.", ge=1, tuning=True)
    compact_files: int = option(
        64, "Small files of the table that are left; more are merged.", ge=1, tuning=True
    )
    max_pixels: int = option(
        MAX_IMAGE_PIXELS, "The largest image, width x height.", ge=1, tuning=True
    )
    max_bytes: int = option(MAX_FILE_BYTES, "The largest file.", ge=1, tuning=True)
    image_seconds: float = option(
        60.0,
        "What an image may take before it is given up.",
        gt=0,
        tuning=True,
        allow_inf_nan=False,
    )
    driver_memory: str = option("2g", "Memory of Spark's Java machine.", tuning=True, cluster=False)

    @field_validator("components")
    @classmethod
    def _check_components(cls, value: float | None) -> int | float | None:
        if isinstance(value, int) and value < 1:
            raise ValueError("a count of components is at least 1")
        if isinstance(value, float) and not 0 < value <= 1:
            raise ValueError("a share of the variance is above 0 and at most 1.0")
        return value

    @field_validator("label_from")
    @classmethod
    def _check_label_from(cls, value: str) -> str:
        if value not in {"parent", "none"}:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
            if groups != 1:
                raise ValueError(
                    "'parent', 'none', or a regular expression over the path with one group, "
                    r"such as '^([^/]+)/'"
                )
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.prune and self.limit:
            raise ValueError("--limit with --prune would delete the rows of all other images")
        if self.components is not None and (self.keep_pca or self.model):
            raise ValueError("--components is fixed by the PCA that is kept")
        if self.remote and self.master:
            raise ValueError("--remote names a Connect server, which has a --master already")
        if self.remote and self.driver_memory != type(self).model_fields["driver_memory"].default:
            raise ValueError("--driver-memory is of a Java here; with --remote there is none")
        if (self.engine, self.precision) == ("tensorflow", "bf16"):
            raise ValueError("--precision bf16 is OpenVINO's: use --engine openvino, or f32")
        if self.keep_pca and (self.fresh or self.model):
            raise ValueError(
                "--keep-pca takes the PCA of this output; leave out --fresh and --model"
            )
        return self


def traits_of(field: FieldInfo) -> dict[str, Any]:
    """What `option` was told of a setting; nothing where the field is no option."""
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def options_for(use: Literal["cluster", "notebook"] | None = None) -> tuple[str, ...]:
    """The names of the settings that are options: all, or those that are passed on to some use."""
    return tuple(
        name
        for name, field in RunSettings.model_fields.items()
        if (traits := traits_of(field)) and (use is None or traits[use])
    )


def make_settings(**values: Any) -> RunSettings:
    """Validate settings.

    Raises:
        UsageError: one of them is wrong; it names the option.
    """
    try:
        return RunSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise UsageError(f"{message}.") from error
        name, given = str(first["loc"][0]), first["input"]
        shown = without_secrets(str(given)) if name == "remote" else given
        raise UsageError(f"--{name.replace('_', '-')}: {message} (got {shown!r}).") from error
