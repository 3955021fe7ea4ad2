"""What the settings accept, how they read it, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from verger.errors import UsageError
from verger.settings import RunSettings, make_settings
from verger.store.location import Location


def settings(**given: Any) -> RunSettings:
    return RunSettings(**{"input": "/in", "output": "/out", **given})


@pytest.mark.parametrize(
    ("text", "value"), [("50", 50), ("1", 1), (" 7 ", 7), ("0.95", 0.95), ("1.0", 1.0), (2, 2)]
)
def test_components_are_a_count_or_a_share(text: object, value: float) -> None:
    components = settings(components=text).components
    assert components == value
    assert type(components) is type(value)


@pytest.mark.parametrize(
    "text", ["0", "-3", "abc", "1.5", "nan", "0.0", "", "inf", "-0.5", "5 0", 0, -1, 1.5]
)
def test_components_that_mean_nothing_are_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        settings(components=text)


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("0.01", 0.01), (" 100 % ", 1), ("0", 0), (0.5, 0.5)]
)
def test_max_rejected_is_a_share(text: object, share: float) -> None:
    assert settings(max_rejected=text).max_rejected == share


@pytest.mark.parametrize("text", ["101%", "-1%", "2", "abc", "%", "", "nan", "nan%"])
def test_max_rejected_outside_0_to_1_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        settings(max_rejected=text)


@pytest.mark.parametrize("rule", ["parent", "none", r"^([^/]+)/", r"(?:a|b)/(.)"])
def test_label_rules_are_accepted(rule: str) -> None:
    assert settings(label_from=rule).label_from == rule


@pytest.mark.parametrize("rule", ["", "folder", "(", r"(a)(b)", r"(?:a)"])
def test_label_rules_without_exactly_one_group_are_refused(rule: str) -> None:
    with pytest.raises(ValidationError):
        settings(label_from=rule)


@pytest.mark.parametrize(
    "field", ["limit", "wave_size", "task_size", "max_pixels", "max_bytes", "read_ahead"]
)
def test_counts_start_at_1(field: str) -> None:
    assert getattr(settings(**{field: 1}), field) == 1
    with pytest.raises(ValidationError):
        settings(**{field: 0})


def test_unknown_settings_and_changes_are_refused() -> None:
    with pytest.raises(ValidationError):
        settings(colour="red")
    with pytest.raises(ValidationError):
        settings().limit = 3


def test_settings_survive_json() -> None:
    before = settings(components="1.0", input="s3://bucket/in", max_rejected="1%")
    after = RunSettings.model_validate_json(before.model_dump_json())
    assert after == before
    assert type(after.components) is float


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("/a/b/", "/a/b"),
        ("/a/../b", "/b"),
        ("file:///a/b", "/a/b"),
        ("/a b/é,#%20", "/a b/é,#%20"),
        ("/", "/"),
    ],
)
def test_locations_are_read(text: str, uri: str) -> None:
    location = Location.parse(text)
    assert location.uri == str(location) == uri
    assert location.is_s3 == text.startswith("s3://")


def test_relative_and_home_paths_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Location.parse("a/b").uri == f"{tmp_path}/a/b"
    assert Location.parse(".").uri == str(tmp_path)
    assert Location.parse("~/a").uri == f"{tmp_path}/home/a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3://",
        "s3:///",
        "file://",
        "http://host/a",
        "gs://b/a",
        "hdfs://h/a",
        "S3A://b",
        "~x/a",
    ],
)
def test_other_locations_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Location.parse(text)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    ("outer", "inner", "is_inside"),
    [
        ("/a/b", "/a/b", True),
        ("/a/b", "/a/b/c", True),
        ("/a/b", "/a/bc", False),
        ("/a/b", "/a", False),
        ("/", "/a", True),
        ("s3://b/a", "s3://b/a/c", True),
        ("s3://b/a", "s3://b/ab", False),
        ("s3://b", "s3://bc/a", False),
        ("/b", "s3://b", False),
    ],
)
def test_a_location_contains_what_lies_below_it(outer: str, inner: str, is_inside: bool) -> None:
    assert Location.parse(outer).contains(Location.parse(inner)) is is_inside


@pytest.mark.parametrize(
    ("parent", "child"), [("/a", "/a/b/c"), ("/", "/b/c"), ("s3://a", "s3://a/b/c")]
)
def test_children_lie_below(parent: str, child: str) -> None:
    assert Location.parse(parent).child("b", "c").uri == child
    assert Location.parse(parent).child("b/c").uri == child


def test_a_time_without_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        settings(image_seconds="inf")


@pytest.mark.parametrize("remote", ["sc://host:x/;token=hidden", "sc://host;token=hidden"])
def test_an_address_that_is_refused_does_not_show_its_token(remote: str) -> None:
    with pytest.raises(UsageError, match="--remote: ") as caught:
        make_settings(input="/in", output="/out", remote=remote)
    assert "hidden" not in str(caught.value)


def test_true_is_no_count_of_components() -> None:
    with pytest.raises(ValueError, match="components"):
        RunSettings(input="/in", output="/out", components=True)
