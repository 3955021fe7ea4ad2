"""Which verger this is."""

from importlib.metadata import version

VERSION = version("verger")
