"""What a command was asked to do: one validated, frozen object."""

import re
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from verger.errors import UsageError
from verger.output.layout import Output
from verger.store.location import Location

DEFAULT_COMPONENTS = 50
MAX_FILE_BYTES = 256 * 2**20
"""The largest file that is read whole."""

MAX_IMAGE_PIXELS = 89_478_485
"""Pillow's own limit against decompression bombs: a quarter of a GiB in RGB."""


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


Place = Annotated[
    Location,
    BeforeValidator(lambda value: Location.parse(value) if isinstance(value, str) else value),
    PlainSerializer(str),
]
Components = Annotated[int | float | None, BeforeValidator(parse_components)]
Share = Annotated[float, BeforeValidator(parse_share), Field(ge=0, le=1)]


class RunSettings(BaseModel):
    """The settings of `verger run`; most fields are options of the same name."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    input: Place
    output: Place
    components: Components = None
    """A count (int), a share of the variance (float), or None: 50, or fewer if rows are few."""
    fresh: bool = False
    """Delete what an earlier run left in the output, and start over."""
    limit: int | None = Field(default=None, ge=1)
    prune: bool = False
    """Delete the rows of images that have gone from the input."""
    retry_rejected: bool = False
    """Try images again that were rejected and have not changed."""
    keep_pca: bool = False
    """Project through the PCA that the output has, instead of fitting one."""
    rebase: bool = False
    """Take the input for the same images at another place, told apart by their sizes alone."""
    model: Place | None = None
    """Project through the PCA of this output (or `model/` folder), instead of fitting one."""
    label_from: str = "parent"
    weights: str = "bundled"
    engine: Literal["openvino", "tensorflow"] = "openvino"
    precision: Literal["f32", "bf16"] = "f32"
    max_rejected: Share = 0.01
    master: str | None = None
    """Spark's master URL; None for all processors of this machine."""
    wave_size: int = Field(default=8192, ge=1)
    """Images that are committed together: what a kill can cost."""
    task_size: int = Field(default=128, ge=1)
    """Images in a Spark task."""
    compact_files: int = Field(default=32, ge=1)
    """Small files of the table that are left as they are; more are merged when the run ends."""
    retain: int = Field(default=0, ge=0)
    """Hours that files of the table are kept after it needs them no more, for whoever reads it
    meanwhile. With `prune` they go at once."""
    max_pixels: int = Field(default=MAX_IMAGE_PIXELS, ge=1)
    max_bytes: int = Field(default=MAX_FILE_BYTES, ge=1)
    """The largest file that is read, in bytes."""
    read_ahead: int = Field(default=16, ge=1)
    """Files that a worker reads at once, ahead of the network."""
    image_seconds: float = Field(default=60.0, gt=0)
    """What an image may take before it is given up as `timeout`."""
    driver_memory: str = "2g"
    lang: Literal["en", "fr"] = "en"
    """Of the report and the summary."""
    deadline: AwareDatetime | None = None
    """When to stop after the wave that is at work; the same command goes on from there."""

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
        if (self.engine, self.precision) == ("tensorflow", "bf16"):
            raise ValueError("--precision bf16 is OpenVINO's: use --engine openvino, or f32")
        if self.keep_pca and (self.fresh or self.model):
            raise ValueError(
                "--keep-pca takes the PCA of this output; leave out --fresh and --model"
            )
        return self


def check_apart(source: Location, output: Location) -> None:
    """Refuse an output inside its input.

    Raises:
        UsageError: naming both.
    """
    if source.contains(output):
        raise UsageError(
            f"The output {output} lies inside the input {source}.",
            "Give an output elsewhere: its files would be listed as images by the next run.",
        )


def check_places(settings: RunSettings) -> None:
    """Refuse an input, an output and a model that lie in one another.

    Raises:
        UsageError: naming them.
    """
    check_apart(settings.input, settings.output)
    output = Output(settings.output)
    for folder in (*output.folders, output.work):
        if folder.contains(settings.input):
            raise UsageError(
                f"The input {settings.input} is where results go: runs delete what is in {folder}.",
                "Give an output elsewhere.",
            )
    if settings.model and output.location.contains(settings.model):
        raise UsageError(
            f"The PCA {settings.model} lies inside the output {settings.output}.",
            "Give an output elsewhere, or use --keep-pca with `verger run`.",
        )
