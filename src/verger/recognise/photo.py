"""From the bytes of a photograph to the features that the recogniser was fitted on."""

from dataclasses import dataclass, field
from threading import local

import numpy as np

from verger.errors import SetupError
from verger.images.decoding import Resize, Rules, decode, rules_of
from verger.images.loading import Loader
from verger.images.views import split, to_views
from verger.networks.engines import Engine, Pixels, mean_of_views, new_engine
from verger.networks.graph import Backbone, load_backbone
from verger.output.layout import Output, Reason, Rejection
from verger.output.manifest import read_manifest
from verger.recognise.recogniser import Recogniser, RecogniserRecord, load_recogniser
from verger.reduce.moments import Float64
from verger.settings import MAX_FILE_BYTES, MAX_IMAGE_PIXELS
from verger.store import storage
from verger.store.location import Location


def open_backbone(output: Output, record: RecogniserRecord) -> Backbone:
    """The network that an output was made with.

    Raises:
        SetupError: its weights are not here, or are not those.
        UsageError: they were a file that is gone.
    """
    manifest = read_manifest(output)
    # A cluster was given a file of them, which is not here.
    known = manifest.backbone.weights in {"bundled", "keras"}
    backbone = load_backbone(
        manifest.backbone.weights if known else manifest.settings.get("weights", "bundled"),
        "tensorflow" if manifest.engine.name == "tensorflow" else "openvino",
        "bf16" if record.identity.precision == "bf16" else "f32",
        record.identity.backbone,
    )
    made_with, here = record.identity.weights_sha256, backbone.weights.sha256
    if made_with != here or record.identity.backbone != backbone.network.name:
        raise SetupError(
            f"{output.location} was made with {record.identity.backbone} and weights "
            f"{made_with[:12]}; here are {backbone.network.name} and {here[:12]}.",
            "Put the weights back where they were, or run again into another output.",
        )
    return backbone


@dataclass(frozen=True)
class Photographer:
    """Turns photographs into features; may be used by many threads, each with its own engine.

    Attributes:
        backbone: the network.
        views: of a photograph; see `verger.networks.engines.mean_of_views`.
        rules: by which photographs become pixels.
    """

    backbone: Backbone
    views: int
    rules: Rules
    engines: local = field(default_factory=local, repr=False)

    @classmethod
    def of(
        cls, output: Output, record: RecogniserRecord, max_pixels: int = MAX_IMAGE_PIXELS
    ) -> "Photographer":
        """The one whose features are those that a recogniser was fitted on; errors as above."""
        backbone = open_backbone(output, record)
        rules = rules_of(record.identity.decoding, backbone.network.side, max_pixels)
        return cls(backbone, int(record.identity.views), rules)

    def features(self, data: bytes) -> Float64 | Rejection:
        """The features of a file's bytes, (d,), or why it gives none."""
        picture = decode(data, self.resize, self.rules)
        return picture if isinstance(picture, Rejection) else self.reduce(picture.pixels)

    def loader(self, folder: Location, max_bytes: int = MAX_FILE_BYTES) -> Loader:
        """What reads images of a folder into pixels for `reduce`."""
        return Loader(folder, self.resize, max_bytes, self.rules)

    @property
    def resize(self) -> Resize:
        """Lays out the views."""
        return to_views(self.backbone.network.side, self.views)

    def reduce(self, pixels: Pixels) -> Float64:
        """Views as `resize` lays them out to their mean features, (d,)."""
        engine, views = self._engine(), split(pixels)
        batches = (
            views[start : start + engine.batch_size]
            for start in range(0, len(views), engine.batch_size)
        )
        features = [row for batch in batches for row in engine.features(batch)]
        return mean_of_views(features).astype(np.float64)

    def _engine(self) -> Engine:
        if not hasattr(self.engines, "engine"):
            self.engines.engine = new_engine(self.backbone)
        engine: Engine = self.engines.engine
        return engine


def open_recogniser(
    output: Output, max_pixels: int = MAX_IMAGE_PIXELS
) -> tuple[Recogniser, Photographer]:
    """The recogniser of an output, and what turns photographs into the features that it takes.

    Raises:
        InputError: the output has none.
        SetupError: the network that it was made with is not here.
    """
    recogniser = load_recogniser(output)
    return recogniser, Photographer.of(output, recogniser.record, max_pixels)


def read_photograph(file: Location, photographer: Photographer) -> Float64 | Rejection:
    """The features of one file, or why it gives none.

    Raises:
        SetupError: the store does not answer.
    """
    try:
        data = storage.read_bytes(file, MAX_FILE_BYTES + 1)
    except OSError as error:
        storage.check_reachable(file)
        return Rejection(Reason.UNREADABLE, f"{type(error).__name__}: {error.strerror or error}")
    if len(data) > MAX_FILE_BYTES:
        return Rejection(Reason.TOO_LARGE, f"more than {MAX_FILE_BYTES:,} bytes")
    return photographer.features(data)
