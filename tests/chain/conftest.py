"""Images that a test of the chain may change."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def images(orchard: Path, tmp_path: Path) -> Path:
    """A copy of the orchard."""
    return shutil.copytree(orchard, tmp_path / "in")
