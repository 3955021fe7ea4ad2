"""Which Python `make` takes for .venv, and what installs into it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout on a machine with a shell and no Python: its folder of programs is `bin`."""
    (tmp_path / "bin").mkdir()
    for name in ("sh", "sed", "mkdir", "touch", "cat"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    shutil.copy(ROOT / "requirements-dev.lock", tmp_path)
    return tmp_path


def add_python(machine: Path, name: str, *, supported: bool = True) -> None:
    """A program that says whether it is supported, and notes what venv it was asked for."""
    script = machine / "bin" / name
    code = 0 if supported else 1
    script.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {code}\necho {name} "$@" >> asked\n')
    script.chmod(0o755)


def make_venv(machine: Path, python: str = "") -> subprocess.CompletedProcess:
    env = {"PATH": str(machine / "bin"), "PYTHON": python}
    return subprocess.run(
        ["/bin/sh", ROOT / "tools/make_venv.sh"],
        cwd=machine, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_newest_supported_python_is_taken(machine: Path) -> None:
    for name in ("python3.10", "python3.12", "python3.14", "python3"):
        add_python(machine, name)
    assert make_venv(machine).returncode == 0
    assert (machine / "asked").read_text() == "python3.12 -m venv --clear .venv\n"


def test_one_that_cannot_make_a_venv_is_passed_over(machine: Path) -> None:
    add_python(machine, "python3.13", supported=False)
    add_python(machine, "python3")
    assert make_venv(machine).returncode == 0
    assert (machine / "asked").read_text() == "python3 -m venv --clear .venv\n"


def test_the_one_that_is_named_is_taken_or_refused(machine: Path) -> None:
    add_python(machine, "python3.13")
    add_python(machine, "mine")
    assert make_venv(machine, "mine").returncode == 0
    assert (machine / "asked").read_text().startswith("mine ")
    add_python(machine, "old", supported=False)
    refused = make_venv(machine, "old")
    assert refused.returncode == 1
    assert "old is no Python 3.10 to 3.13" in refused.stderr


def test_where_there_is_only_a_newer_one_uv_brings_3_13(machine: Path) -> None:
    add_python(machine, "python3", supported=False)
    uv = machine / ".cache/uv-venv/bin"
    uv.mkdir(parents=True)
    for name in ("python", "uv"):
        (uv / name).write_text(f'#!/bin/sh\necho {name} "$@" >> asked\n')
        (uv / name).chmod(0o755)
    assert make_venv(machine).returncode == 0
    venv, pip, fetch = (machine / "asked").read_text().splitlines()
    assert venv == "python3 -m venv .cache/uv-venv"
    assert "--require-hashes" in pip
    assert "--python 3.13" in fetch
    pinned = (machine / ".cache/uv.lock").read_text()
    assert pinned.startswith("uv==")
    assert pinned.count("==") == 1
    assert "--hash=sha256:" in pinned


def test_where_none_can_be_had_it_is_said_in_a_line(machine: Path) -> None:
    done = make_venv(machine)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("verger needs Python 3.10 to 3.13")


def install(machine: Path, *words: str) -> list[str]:
    """What `.venv/bin/python` and `uv` are asked, when a lock file is installed."""
    done = subprocess.run(
        ["/bin/sh", ROOT / "tools/install.sh", *words],
        cwd=machine, env={"PATH": str(machine / "bin")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (machine / "asked").read_text().splitlines()


def write_program(machine: Path, name: str, code: str) -> None:
    program = machine / ".venv/bin" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/sh\necho {name} "$@" >> asked\n{code}\n')
    program.chmod(0o755)


def test_a_lock_file_is_installed_by_uv_with_every_hash(machine: Path) -> None:
    write_program(machine, "uv", "")
    (asked,) = install(machine, "a.lock", "--target", "there")
    assert asked.startswith("uv pip install")
    assert "--require-hashes" in asked
    assert asked.endswith("-r a.lock --target there")


def test_uv_itself_comes_by_pip_and_with_its_hash(machine: Path) -> None:
    write_program(machine, "uv", "")
    uv = machine / ".venv/bin/uv"
    uv.rename(machine / "uv")
    (machine / "bin/mv").symlink_to(shutil.which("mv"))
    write_program(machine, "python", "mv uv .venv/bin/uv")
    pip, asked = install(machine, "a.lock")
    assert "--require-hashes" in pip
    assert pip.endswith("-r .venv/uv.lock")
    assert "--hash=sha256:" in (machine / ".venv/uv.lock").read_text()
    assert asked.startswith("uv pip install")


def test_what_uv_cannot_install_pip_does(machine: Path) -> None:
    write_program(machine, "uv", "exit 2")
    write_program(machine, "python", "")
    _, pip = install(machine, "a.lock", "--target", "there")
    assert pip.startswith("python -m pip")
    assert "--require-hashes" in pip
    assert pip.endswith("-r a.lock --target there")
