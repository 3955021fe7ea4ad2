"""The networks that verger knows, a line each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """What is true of a network, whatever its weights.

    Attributes:
        name: in manifests, and of the module beside this one that builds it.
        side: pixels a side of the square pictures that it takes, uint8 in RGB; it scales the values
            itself.
        width: how many features it gives.
    """

    name: str
    side: int
    width: int


MOBILENET_V2 = Network("mobilenet_v2", side=224, width=1280)
