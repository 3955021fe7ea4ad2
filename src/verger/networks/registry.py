"""The networks that verger knows, a line each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """What is true of a network, whatever its weights.

    Attributes:
        name: in manifests, and of the module beside this one that builds it; `keras:NAME` are built
            by `keras_application`.
        side: pixels a side of the square pictures that it takes, uint8 in RGB; it scales the values
            itself.
        width: how many features it gives.
        work: a processor's time for a picture, in that of MobileNetV2: measured with OpenVINO in
            float32 on one thread with AVX-512; 1 where that was not measured.
    """

    name: str
    side: int
    width: int
    work: float = 1.0


MOBILENET_V2 = Network("mobilenet_v2", side=224, width=1280)
EFFICIENTNET_LITE2 = Network("efficientnet_lite2", side=260, width=1280, work=2.7)
BOTH = Network("mobilenet_v2+efficientnet_lite2", side=260, width=2560, work=4.1)
"""The features of both side by side, each scaled to length one."""

KERAS = "keras:"
"""Before the name of an application of Keras', whose side and width it says itself."""

NETWORKS = {network.name: network for network in (MOBILENET_V2, EFFICIENTNET_LITE2, BOTH)}


def work_of(name: str, views: int) -> float:
    """A processor's time for an image in so many views, in that of MobileNetV2 for one view."""
    network = NETWORKS.get(name)
    return views * (network.work if network else 1.0)
