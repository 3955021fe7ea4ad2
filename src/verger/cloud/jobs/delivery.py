"""What a job needs, in the stack's bucket: packages, code and backbone, uploaded once."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from verger.cloud.account.stack import CODE, Stack
from verger.cloud.jobs.bundle import ENTRY, Architecture, pack_code, pack_environment
from verger.networks.graph import load_backbone, save_backbone
from verger.progress import Progress, utc_now
from verger.settings import RunSettings
from verger.store.cache import cache_folder
from verger.store.errors import bucket_errors

FRESH = timedelta(days=20)
"""What is older is uploaded again: the bucket deletes code after 30 days."""


@dataclass(frozen=True)
class Bundle:
    """Files on this machine: see `bundle` for the first two and the last."""

    environment: Path
    code: Path
    backbone: Path
    entry: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.environment, self.code, self.backbone, self.entry)


def make_bundle(
    arch: Architecture, progress: Progress, settings: RunSettings | None = None
) -> Bundle:
    """Make what is not in the cache yet.

    Args:
        arch: of the cluster's processors.
        progress: is told what is made.
        settings: which network; None for the one that comes with verger.

    Raises:
        SetupError: pip cannot get the packages, or the weights are missing.
    """
    folder = cache_folder() / "bundles"
    progress.start("bundle")
    environment, code = pack_environment(folder, arch), pack_code(folder)
    progress.finish()
    progress.start("backbone")
    run = settings or RunSettings.model_construct()
    backbone = load_backbone(run.weights, run.engine, run.precision, run.network)
    digest = hashlib.sha256(backbone.payload).hexdigest()[:12]
    saved = folder / f"backbone-{digest}.zip"
    if not saved.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            whole = Path(scratch, saved.name)
            save_backbone(backbone, whole)
            whole.replace(saved)
    progress.finish()
    return Bundle(environment, code, saved, ENTRY)


def deliver(
    session: Any, stack: Stack, files: Sequence[Path], progress: Progress
) -> dict[Path, str]:
    """Upload what the bucket does not hold under the digest of its content.

    Returns:
        The URI of each file.

    Raises:
        InputError, SetupError: the bucket cannot be written.
    """
    client = session.client("s3")
    keys = _keys(stack, files)
    absent = missing(session, stack, files)
    with bucket_errors(stack.bucket):
        if absent:
            progress.start("deliver", sum(file.stat().st_size for file in absent))
            sent = 0

            def count(size: int) -> None:
                nonlocal sent
                sent += size
                progress.update(sent)

            for file in absent:
                client.upload_file(str(file), stack.bucket, keys[file], Callback=count)
            progress.finish()
    return uris(stack, files)


def uris(stack: Stack, files: Sequence[Path]) -> dict[Path, str]:
    """Where each file is once it is delivered."""
    return {file: f"s3://{stack.bucket}/{key}" for file, key in _keys(stack, files).items()}


def missing(session: Any, stack: Stack, files: Sequence[Path]) -> list[Path]:
    """Those that the bucket does not hold, or not for long.

    Raises:
        InputError, SetupError: the bucket cannot be read.
    """
    client = session.client("s3")
    with bucket_errors(stack.bucket):
        return [
            file
            for file, key in _keys(stack, files).items()
            if not _is_there(client, stack.bucket, key)
        ]


def _keys(stack: Stack, files: Sequence[Path]) -> dict[Path, str]:
    return {file: stack.key(CODE, digest(file), file.name) for file in files}


def digest(file: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _is_there(client: Any, bucket: str, key: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        head = client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.NOT_FOUND:
            raise
        return False
    return bool(utc_now() - head["LastModified"] < FRESH)
