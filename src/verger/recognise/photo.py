"""From the bytes of a photograph to the features that the recogniser was fitted on."""

from dataclasses import dataclass, field
from threading import local

import numpy as np

from verger.errors import SetupError
from verger.images.decoding import Resize, Rules, decode, rules_of
from verger.images.loading import Loader
from verger.images.views import split, to_views
from verger.networks.engines import Engine, Features, Pixels, mean_of_views, new_engine
from verger.networks.graph import Backbone, load_backbone
from verger.output.layout import Output, Reason, Rejection
from verger.output.manifest import read_manifest
from verger.recognise.recogniser import Recogniser, load_recogniser
from verger.reduce.moments import Float64
from verger.settings import MAX_FILE_BYTES, MAX_IMAGE_PIXELS
from verger.store import storage
from verger.store.location import Location


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

    def features(self, data: bytes) -> Float64 | Rejection:
        """The features of a file's bytes, (d,), or why it gives none."""
        picture = decode(data, self.resize, self.rules)
        return picture if isinstance(picture, Rejection) else self.reduce(picture.pixels)

    def loader(self, folder: Location) -> Loader:
        """What reads images of a folder into pixels for `reduce`."""
        return Loader(folder, self.resize, MAX_FILE_BYTES, self.rules)

    @property
    def resize(self) -> Resize:
        """Lays out the views."""
        return to_views(self.backbone.network.side, self.views)

    def reduce(self, pixels: Pixels) -> Float64:
        """Views as `resize` lays them out to their mean features, (d,)."""
        if not hasattr(self.engines, "engine"):
            self.engines.engine = new_engine(self.backbone)
        engine: Engine = self.engines.engine
        views = split(pixels)
        features: list[Features] = []
        for start in range(0, len(views), engine.batch_size):
            features += [*engine.features(views[start : start + engine.batch_size])]
        return mean_of_views(features).astype(np.float64)


def open_recogniser(
    output: Output, max_pixels: int = MAX_IMAGE_PIXELS
) -> tuple[Recogniser, Photographer]:
    """The recogniser of an output, and what makes of photographs features as those of its fit.

    Raises:
        InputError: there is no output.
        UsageError: it has no recogniser, or the weights of its network were a file that is gone.
        SetupError: these weights are not here, or are not those.
    """
    recogniser = load_recogniser(output)
    manifest, identity = read_manifest(output), recogniser.record.identity
    # A cluster was given a file of them, which is not here.
    known = manifest.backbone.weights in {"bundled", "keras"}
    backbone = load_backbone(
        manifest.backbone.weights if known else manifest.settings.get("weights", "bundled"),
        "tensorflow" if manifest.engine.name == "tensorflow" else "openvino",
        "bf16" if identity.precision == "bf16" else "f32",
        identity.backbone,
    )
    made_with, here = identity.weights_sha256, backbone.weights.sha256
    if made_with != here or identity.backbone != backbone.network.name:
        raise SetupError(
            f"{output.location} was made with {identity.backbone} and weights "
            f"{made_with[:12]}; here are {backbone.network.name} and {here[:12]}.",
            "Put the weights back where they were, or run again into another output.",
        )
    rules = rules_of(identity.decoding, backbone.network.side, max_pixels)
    return recogniser, Photographer(backbone, int(identity.views), rules)


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
