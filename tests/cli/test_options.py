"""Options follow the settings: on the command line, and in the words that a cluster is given."""

from datetime import datetime, timezone
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from verger.cli import run as run_commands
from verger.cli.main import app
from verger.cloud.jobs.submit import job_command
from verger.settings import RunSettings, options_for

UNUSUAL = {
    "components": 0.95, "limit": 7, "label_from": "^([^/]+)/", "max_rejected": 0.5, "fresh": True,
    "retry_rejected": True, "rebase": True, "retain": 3, "lang": "fr", "credit": "An orchard",
    "wave_size": 5, "task_size": 6, "read_ahead": 2, "compact_files": 9, "max_pixels": 10,
    "max_bytes": 11, "image_seconds": 1.5, "exact_decoding": True, "accept_truncated": True,
    "csv_dialect": "excel-fr", "views": 2, "network": "efficientnet_lite2",
}  # fmt: skip
"""Of all settings that a cluster is passed, but for two that do not go with these."""


def options_of(*names: str) -> set[str]:
    command: Any = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]
    return {parameter.name for parameter in command.params}


def test_every_setting_is_an_option() -> None:
    assert set(options_for()) | {"input", "output"} <= options_of("run")
    assert set(RunSettings.model_fields) - {"model"} == set(options_for()) | {"input", "output"}
    assert {"model"} | set(options_for()) - {"components", "keep_pca"} <= options_of("transform")
    assert set(options_for("cluster")) <= options_of("cloud", "run")
    assert set(options_for("notebook")) <= options_of("cloud", "notebook")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[RunSettings]:
    """The settings with which the chain would run."""
    settings: list[RunSettings] = []
    monkeypatch.setattr(run_commands, "run_chain", lambda given, **_: settings.append(given))
    return settings


def test_a_cluster_does_what_was_asked_for(taken: list[RunSettings]) -> None:
    assert {*UNUSUAL, "prune", "keep_pca"} == set(options_for("cluster"))
    places = {"input": "s3://orchard/in", "output": "s3://orchard/out"}
    deadline = datetime(2026, 12, 24, 18, tzinfo=timezone.utc)
    for unusual in (UNUSUAL, {"prune": True, "keep_pca": True}):
        settings = RunSettings(**places, **unusual)
        done = CliRunner().invoke(app, job_command(settings, deadline))
        assert done.exit_code == 0, done.output
        assert taken.pop() == settings.model_copy(update={"deadline": deadline})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--wave-size", "0"], "--wave-size: Input should be greater than or equal to 1"),
        (["--max-rejected", "200%"], "--max-rejected: "),
        (["--deadline", "tomorrow"], "--deadline: "),
        (["--engine", "pytorch"], "'pytorch' is not one of"),
    ],
)
def test_a_wrong_value_is_a_usage_error_that_names_its_option(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["run", "/in", "/out", *words])
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
