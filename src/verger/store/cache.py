"""The folder for what can be made again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`verger` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "verger"
