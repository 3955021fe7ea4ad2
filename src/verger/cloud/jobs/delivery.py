"""What a job needs, in the stack's bucket: packages, code and backbone, uploaded once."""

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from verger.cloud.account.stack import CODE, Stack
from verger.cloud.jobs.bundle import ENTRY, Architecture, pack_code, pack_environment
from verger.networks.graph import load_backbone, save_backbone
from verger.progress import Progress, utc_now
from verger.store.errors import bucket_errors
from verger.store.location import Location, bucket_and_key, cache_folder

FRESH = timedelta(days=20)
"""What is older is uploaded again: the bucket deletes code after 30 days."""


class Bundle(NamedTuple):
    """Files on this machine: see `bundle` for the first two and the last."""

    environment: Path
    code: Path
    backbone: Path
    entry: Path = ENTRY


def make_bundle(arch: Architecture, progress: Progress, network: str) -> Bundle:
    """Make what is not in the cache yet.

    Raises:
        SetupError: pip cannot get the packages, or the weights are missing.
    """
    folder = cache_folder() / "bundles"
    progress.start("bundle")
    environment, code = pack_environment(folder, arch), pack_code(folder)
    progress.finish()
    progress.start("backbone")
    backbone = load_backbone(network=network)
    digest = hashlib.sha256(backbone.payload).hexdigest()[:12]
    saved = folder / f"backbone-{digest}.zip"
    if not saved.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            whole = Path(scratch, saved.name)
            save_backbone(backbone, whole)
            whole.replace(saved)
    progress.finish()
    return Bundle(environment, code, saved)


def deliver(
    session: Any, stack: Stack, files: Iterable[Path], progress: Progress
) -> dict[Path, str]:
    """Upload what the bucket does not hold under the digest of its content.

    Returns:
        The URI of each file.

    Raises:
        InputError, SetupError: the bucket cannot be written.
    """
    delivered = uris(stack, files)
    absent = missing(session, stack, delivered)
    if absent:
        progress.start("deliver", sum(file.stat().st_size for file in absent))
        client = session.client("s3")
        sent = 0

        def count(size: int) -> None:
            nonlocal sent
            sent += size
            progress.update(sent)

        with bucket_errors(stack.bucket):
            for file in absent:
                key = _key(delivered[file])
                client.upload_file(str(file), stack.bucket, key, Callback=count)
        progress.finish()
    return delivered


def uris(stack: Stack, files: Iterable[Path]) -> dict[Path, str]:
    """Where each file is once it is delivered."""
    place = f"s3://{stack.bucket}"
    return {file: f"{place}/{stack.key(CODE, digest(file), file.name)}" for file in files}


def missing(session: Any, stack: Stack, delivered: Mapping[Path, str]) -> list[Path]:
    """Those files of `uris` that the bucket does not hold, or not for long.

    Raises:
        InputError, SetupError: the bucket cannot be read.
    """
    client = session.client("s3")
    with bucket_errors(stack.bucket):
        return [
            file
            for file, uri in delivered.items()
            if not _is_there(client, stack.bucket, _key(uri))
        ]


def _key(uri: str) -> str:
    return bucket_and_key(Location(uri).path)[1]


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
