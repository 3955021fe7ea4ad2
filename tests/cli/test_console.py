"""What is shown of stages, and that lines are printed as they are."""

import re
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import verger
from verger.cli import console
from verger.cli import run as run_commands
from verger.cli.main import app
from verger.datasets import demo
from verger.progress import Clock


def test_a_stage_that_fails_is_not_shown_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(console, "stderr", terminal)
    with suppress(KeyboardInterrupt), console.progress() as shown, Clock(shown).stage("fit", 100):
        shown.update(30)
        raise KeyboardInterrupt
    assert "30 of 100" in terminal.file.getvalue()
    assert "✓" not in terminal.file.getvalue()


def test_each_stage_has_a_name_for_people() -> None:
    text = "".join(file.read_text() for file in Path(verger.__file__).parent.rglob("*.py"))
    begun = set(re.findall(r'\b(?:start|stage)\(\s*"(\w+)"', text))
    assert begun
    assert begun <= set(console.STAGES)


def test_a_line_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    line = f"[red]{'s3://orchard/:apple:/' * 9}"
    console.say(line)
    assert capsys.readouterr().out == f"{line}\n"


def test_photographs_of_a_demo_that_was_interrupted_are_rendered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(folder: Path, **_: object) -> None:
        assert not folder.exists()
        folder.mkdir(parents=True)
        begun.append(folder)
        if len(begun) == 1:
            raise KeyboardInterrupt

    begun: list[Path] = []
    monkeypatch.setattr(demo, "write_demo_images", render)
    monkeypatch.setattr(run_commands, "run_chain", lambda *_, **__: None)
    codes = [CliRunner().invoke(app, ["demo", str(tmp_path)]).exit_code for _ in range(3)]
    assert codes == [130, 0, 0]
    assert len(begun) == 2
    assert [folder.name for folder in tmp_path.iterdir()] == ["images"]
