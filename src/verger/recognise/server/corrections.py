"""Photographs that people agreed to give, under the class that they named."""

import io
import uuid

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from verger.errors import UsageError
from verger.store import storage
from verger.store.location import Location

QUALITY = 95
"""JPEG's, from 0 to 100."""


def check_labels(labels: tuple[str, ...]) -> None:
    """Refuse classes that are no names of folders.

    Raises:
        UsageError: naming one.
    """
    for label in labels:
        if label in {".", ".."} or "/" in label or "\0" in label:
            raise UsageError(
                f"The class {label!r} cannot name a folder, so that no correction can be kept.",
                "Leave out --corrections.",
            )


def keep(pixels: NDArray[np.uint8], label: str, folder: Location) -> None:
    """Write a photograph as a new image of a class, from its pixels alone: nothing of its file.

    Args:
        pixels: (height, width, 3) RGB.
        label: one that `check_labels` has let pass.
        folder: what `verger run` will read.
    """
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=QUALITY)
    storage.write_bytes(folder.child(label, f"{uuid.uuid4().hex}.jpg"), data.getvalue())
