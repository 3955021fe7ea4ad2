"""Which files are listed, in which order, under which label."""

import inspect
import os
import sys
import unicodedata
from contextlib import nullcontext
from pathlib import Path

import pytest

from verger.errors import InputError
from verger.images.listing import Noticed, is_passed_over, label_rule, list_images, list_input
from verger.output.layout import ListedImage
from verger.store.location import Location


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def listed(root: Path, label_from: str = "parent") -> list[ListedImage]:
    return list(list_images(Location.parse(str(root)), label_from))


def paths(root: Path) -> list[str]:
    return [image.path for image in listed(root)]


def test_all_files_at_every_depth_are_listed_with_size_and_time(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "Apple/b.jpg", "x/y/z/c.txt", ".hidden/.d")
    os.utime(tmp_path / "a.jpg", ns=(1, 1_234_567_891))
    found = listed(tmp_path)
    assert {image.path for image in found} == {"a.jpg", "Apple/b.jpg", "x/y/z/c.txt", ".hidden/.d"}
    assert all(image.size == len(image.path) and image.etag is None for image in found)
    assert next(i for i in found if i.path == "a.jpg").mtime_ns == 1_234_567_891


def test_the_order_is_that_of_the_sorted_paths(tmp_path: Path) -> None:
    # Characters just below and above the slash, where walking by name alone goes wrong.
    make(tmp_path, "a/1", "a/b/2", "a-b/1", "a.jpg", "a0/1", "ab", "é/1", "B/1", "b/a b/1")
    make(tmp_path, "b/a/1", "b/a!", "b/a.png", "10", "9", "😀/1")
    assert paths(tmp_path) == sorted(paths(tmp_path))
    assert len(paths(tmp_path)) == 15


@pytest.mark.parametrize(
    ("label_from", "path", "label"),
    [
        ("parent", "Apple/1.jpg", "Apple"),
        ("parent", "Training/Apple Red 1/1.jpg", "Apple Red 1"),
        ("parent", "1.jpg", ""),
        ("none", "Apple/1.jpg", ""),
        (r"^([^/]+)/", "Training/Apple/1.jpg", "Training"),
        (r"^([^/]+)/", "1.jpg", ""),
        (r"(\d+)_", "Apple/r_12_100.jpg", "12"),
        (r"^(Pear)?", "Apple/1.jpg", ""),
    ],
)
def test_labels(tmp_path: Path, label_from: str, path: str, label: str) -> None:
    make(tmp_path, path)
    assert [image.label for image in listed(tmp_path, label_from)] == [label]
    assert label_rule(label_from)(path) == label


@pytest.mark.parametrize(
    "name",
    ["a b", " a ", "pêche", "pe\u0302che", "🍎", "100%", "%20", "#1", "it's", '"q"', "a,b", "a=b",
     "a\\b", "a\nb", "?*[x]", "a:b", "_x", "~"],
)  # fmt: skip
def test_odd_names_are_listed_as_they_are(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"{name}/{name}.jpg")
    (found,) = listed(tmp_path)
    assert found.path == f"{name}/{name}.jpg"
    assert found.label == unicodedata.normalize("NFC", name)


def test_a_name_that_is_not_utf8_is_shown_with_backslashes(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/p\xeache"
    os.mkdir(folder)  # noqa: PTH102
    Path(os.fsdecode(folder + b"/\xff.jpg")).write_bytes(b"x")
    (found,) = listed(tmp_path)
    assert found.path == r"p\xeache/\xff.jpg"
    assert found.label == r"p\xeache"


def test_a_folder_linked_inside_itself_is_listed_once(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "a/b/2.jpg")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "root").symlink_to(tmp_path)
    assert paths(tmp_path) == ["a/1.jpg", "a/b/2.jpg"]


def test_links_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/Apple/1.jpg", "elsewhere/2.jpg", "input/3.jpg")
    (tmp_path / "input" / "Pear").symlink_to(tmp_path / "elsewhere" / "Apple")
    (tmp_path / "input" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "2.jpg")
    found = listed(tmp_path / "input")
    assert [(i.path, i.label) for i in found] == [
        ("3.jpg", ""),
        ("Pear/1.jpg", "Pear"),
        ("link.jpg", ""),
    ]
    assert found[2].size == len("elsewhere/2.jpg")


def test_what_is_no_file_is_not_listed(tmp_path: Path) -> None:
    make(tmp_path, "1.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    assert paths(tmp_path) == ["1.jpg"]


def test_an_empty_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no file"):
        listed(tmp_path)


def test_a_missing_input_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as caught:
        listed(tmp_path / "missing")
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_a_file_as_input_is_an_input_error(tmp_path: Path) -> None:
    make(tmp_path, "1.jpg")
    for listing in (list_images, list_input):
        with pytest.raises(InputError, match="is a file") as caught:
            list(listing(Location(str(tmp_path / "1.jpg"))))
        assert caught.value.exit_code == 3


def test_a_forbidden_folder_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "Apple/1.jpg", "Pear/1.jpg")
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if str(folder).endswith("Pear"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)  # modes do not stop a test that runs as root
    with pytest.raises(InputError, match=r"Pear cannot be read"):
        listed(tmp_path)


def test_a_link_to_what_must_not_be_read_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passed over, its image would be taken for a deleted one."""

    class Forbidden:
        name, path = "link.jpg", str(tmp_path / "link.jpg")

        def is_dir(self) -> bool:
            raise PermissionError(13, "Permission denied", self.path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda _: nullcontext([Forbidden()]))
        with pytest.raises(InputError, match=r"link\.jpg cannot be read"):
            listed(tmp_path)


@pytest.mark.parametrize("target", ["self.jpg", "1.jpg/below"], ids=["to-itself", "below-a-file"])
def test_a_link_that_leads_nowhere_is_not_listed(tmp_path: Path, target: str) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x")
    (tmp_path / "self.jpg").symlink_to(tmp_path / target)
    assert paths(tmp_path) == ["1.jpg"]


def test_nesting_is_not_limited_by_pythons_stack(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 150)  # 1,000 levels would break pytest's own cleaning up
    deep.mkdir(parents=True)
    (deep / "1.jpg").write_bytes(b"x")
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        found = paths(tmp_path)
    finally:
        sys.setrecursionlimit(before)
    assert found == ["d/" * 150 + "1.jpg"]


LEFT = [
    ".DS_Store", "Apple/.DS_Store", "Thumbs.db", "Apple/Thumbs.db", "Apple_$folder$", "_$folder$",
    "__MACOSX/Apple/._1.jpg", "Apple/._1.jpg", "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "Apple/@eaDir/1.jpg", ".ipynb_checkpoints/1-checkpoint.jpg", ".thumbnails/normal/1.png",
]  # fmt: skip


def test_what_systems_leave_is_passed_over_and_counted(tmp_path: Path) -> None:
    kept = ["Apple/1.jpg", "Apple/DS_Store.jpg", "Apple/thumbnails/1.jpg", ".hidden/1.jpg"]
    make(tmp_path, *kept, *LEFT)
    noticed = Noticed()
    found = list_images(Location.parse(str(tmp_path)), noticed=noticed)
    assert {image.path for image in found} == set(kept)
    assert noticed.passed_over == len(LEFT)
    assert list(noticed.notes()) == ["12 files of systems, such as .DS_Store, were passed over."]
    assert not any(map(is_passed_over, kept))


def test_labels_that_unicode_writes_in_two_ways_are_one(tmp_path: Path) -> None:
    make(tmp_path, "P\u00eache/1.jpg", "Pe\u0302che/2.jpg", "Cerise/3.jpg", "\u00c7a/4.jpg")
    noticed = Noticed()
    found = list(list_images(Location.parse(str(tmp_path)), noticed=noticed))
    assert len({image.path for image in found}) == 4
    assert {image.label for image in found} == {"P\u00eache", "Cerise", "\u00c7a"}
    (note,) = noticed.notes()
    assert note.startswith("1 labels were written in two ways")
    assert "P\u00eache" in note
