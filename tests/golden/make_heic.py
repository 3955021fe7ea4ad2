"""How `phone.heic` was made: `pip install pillow-heif numpy`, which encodes, and run this.

As a phone writes it: the picture lies on its side (EXIF says 6), with the words
SERIAL-12345 in EXIF and XMP. The picture is that of `picture()` below, so that tests can compare.
"""

from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" owner="SERIAL-12345"/>'


def picture() -> Image.Image:
    """Upright: 96 x 64, red to the right, green downwards."""
    y, x = np.mgrid[:64, :96]
    planes = [x * 255 // 95, y * 255 // 63, np.full_like(x, 90)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def main() -> None:
    """Write it beside this file."""
    exif = Image.Exif()
    exif[274], exif[271] = 6, "SERIAL-12345"
    stored = picture().transpose(Image.Transpose.ROTATE_90)
    pillow_heif.register_heif_opener()
    target = Path(__file__).with_name("phone.heic")
    stored.save(target, exif=exif.tobytes(), xmp=XMP, quality=90, chroma=444)


if __name__ == "__main__":
    main()
