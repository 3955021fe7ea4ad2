"""Photographs as phones and archives give them, through a run, a pack, and a run over the pack."""

from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable
from PIL import Image, ImageCms

from helpers import features_of, go, matrix_of, rejected_of, verger
from pictures import encoded
from verger.datasets.packing import pack
from verger.errors import TooManyRejectedError
from verger.store.location import Location

pytestmark = pytest.mark.usefixtures("spark")

GOLDEN = Path(__file__).parents[1] / "golden"


def twisted_profile() -> bytes:
    """sRGB with a green that is more of a yellow."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    at = icc.index(b"gXYZ") + 4
    place = int.from_bytes(icc[at : at + 4], "big") + 8
    return icc[:place] + (30_000).to_bytes(4, "big") + icc[place + 4 :]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    noise = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    small, large = Image.fromarray(noise), Image.fromarray(noise).resize((1600, 1200))
    whole = encoded(small, "JPEG", quality=90)
    files = {
        "Pe\u0302che/phone.heic": (GOLDEN / "phone.heic").read_bytes(),
        "P\u00eache/photo.avif": encoded(small, "AVIF"),
        "Kiwi/photo.jp2": encoded(small, "JPEG2000"),
        "Kiwi/wide.jpg": encoded(small, "JPEG", icc_profile=twisted_profile()),
        "Kiwi/large.jpg": encoded(large, "JPEG", icc_profile=twisted_profile()),
        "Kiwi/no-end.jpg": whole[:-2],
        "Kiwi/cut.jpg": whole[: len(whole) * 2 // 3],
        "Kiwi/lost.jpg": bytes(4000),
        "Kiwi/page.jpg": b"<!DOCTYPE html><title>404</title>",
        "Kiwi/16 bits.tif": encoded(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "TIFF"),
        "Kiwi/.DS_Store": b"\0\0\0\1Bud1",
        "Kiwi_$folder$": b"",
        "_SUCCESS": b"",
    }
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    return tmp_path / "in"


def test_photographs_are_read_and_what_was_special_is_said(
    photographs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    manifest = go(photographs, output, max_rejected=0.4, accept_truncated=True, components=2)
    lost = {"Kiwi/lost.jpg": "corrupt", "Kiwi/page.jpg": "corrupt", "_SUCCESS": "not_an_image"}
    assert rejected_of(output) == lost
    assert set(matrix_of(output).label) == {"P\u00eache", "Kiwi"}
    assert manifest.read_specially == {"profile": 2, "scaled": 1, "truncated": 1}
    assert manifest.passed_over == 2
    rows = DeltaTable(output / "files").to_pandas().set_index("path").special
    assert rows.dropna().to_dict() == {
        "Kiwi/cut.jpg": "truncated", "Kiwi/large.jpg": "profile+scaled", "Kiwi/wide.jpg": "profile",
    }  # fmt: skip
    page = (output / "report.html").read_text()
    assert "<b>2</b> colours converted by their profile" in page
    assert "<b>1</b> cut, and taken as far as they go" in page
    assert "2 files that systems leave beside images were passed over" in page
    # With nothing new, what was special is known.
    assert go(
        photographs, output, max_rejected=0.4, accept_truncated=True, components=2
    ).read_specially == manifest.read_specially  # fmt: skip


def test_lost_photographs_count_against_the_limit(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyRejectedError, match="3 of 10 images"):
        go(photographs, tmp_path / "out")
    assert rejected_of(tmp_path / "out")["Kiwi/cut.jpg"] == "truncated"


def test_a_pack_gives_the_same_features(photographs: Path, tmp_path: Path) -> None:
    packed = pack(Location(str(photographs)), Location(str(tmp_path / "packed")))
    assert packed.refused == {"corrupt": 2, "not_an_image": 1, "truncated": 1}
    go(photographs, tmp_path / "ours", max_rejected=0.4)
    go(tmp_path / "packed", tmp_path / "theirs", max_rejected=0.4)
    ours, theirs = features_of(tmp_path / "ours"), features_of(tmp_path / "theirs")
    assert len(ours) == 7
    assert ours.path.tolist() == theirs.path.tolist()
    assert ours.label.tolist() == theirs.label.tolist()
    np.testing.assert_array_equal(np.stack(ours.features), np.stack(theirs.features))
    assert rejected_of(tmp_path / "ours") == rejected_of(tmp_path / "theirs")


def test_the_summary_says_what_was_special(photographs: Path, tmp_path: Path) -> None:
    done = verger("run", photographs, tmp_path / "out", "--max-rejected", "40%", "--lang", "fr")
    assert done.returncode == 0, done.stderr
    assert "2 couleurs converties selon leur profil" in " ".join(done.stdout.split())
