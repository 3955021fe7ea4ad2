"""The commands that set up, plan, upload and erase on AWS."""

from verger.cli.cloud_app import cloud_app

__all__ = ["cloud_app"]
