"""A real S3 server on loopback, started and stopped by the tests."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.stub import Stubber

from faults import faulty
from helpers import running
from verger.store.client import _make_client, _session, bucket_region

WEED = Path(sys.executable).with_name("weed")
KEYS = {"AWS_ACCESS_KEY_ID": "orchard", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests"}
REGION = "eu-west-3"
"""Where all buckets of the tests lie."""

FAKE_KEYS = {name.lower(): value for name, value in KEYS.items()}
"""The same as boto3 takes them."""


class Stubs:
    """A session whose clients are stubbed; each service has the answers that it was given."""

    def __init__(self, region: str = REGION) -> None:
        self.region_name = region
        self.clients: dict[str, object] = {}
        self.stubs: dict[str, Stubber] = {}

    def client(self, name: str, **_: object):
        if name not in self.clients:
            self.clients[name] = boto3.client(name, region_name=REGION, **FAKE_KEYS)
            self.stubs[name] = Stubber(self.clients[name])
        return self.clients[name]

    def get_partition_for_region(self, _: str) -> str:
        return "aws"

    def on(self, name: str) -> Stubber:
        self.client(name)
        return self.stubs[name]

    @contextmanager
    def active(self) -> Iterator[None]:
        for stub in self.stubs.values():
            stub.activate()
        yield
        for stub in self.stubs.values():
            stub.assert_no_pending_responses()


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, nor on the same plus 10,000 (SeaweedFS' gRPC).

    All are below those that Linux gives to outgoing connections, of which other tests make many
    between this search and the start of a server.
    """
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = secrets.choice(range(10_000, 22_000))
            try:
                for number in (port, port + 10_000):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
    return found


def aws_env(port: int) -> dict[str, str]:
    """What the AWS settings say of a server on this port."""
    return {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": REGION}


@contextmanager
def seaweedfs(folder: Path) -> Iterator[int]:
    """A SeaweedFS that keeps its data in a folder; yields the port of its S3.

    It would take a signature for any region; before it stands what takes those for `REGION` only.
    """
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        for attempt in range(3):
            # Its log is kept, so that a server that did not start can be asked why.
            log = stack.enter_context((folder.parent / f"weed-{attempt}.log").open("wb"))
            s3, *others = free_ports(6)
            command = [WEED, "mini", *weed_arguments(folder, s3, others)]
            environment = {**os.environ, **KEYS}
            process = stack.enter_context(running(command, env=environment, stdout=log, stderr=log))
            if is_ready(s3, process):
                yield stack.enter_context(faulty(s3, lambda *_: None, REGION))
                return
    raise RuntimeError(f"the S3 server does not start: see weed-*.log in {folder.parent}")


def weed_arguments(folder: Path, s3: int, others: list[int]) -> list[str]:
    master, volume, filer, admin, webdav = others
    arguments = {
        "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "dir": folder, "s3.port": s3,
        "master.port": master, "volume.port": volume, "filer.port": filer, "admin.port": admin,
        "webdav.port": webdav, "webdav": "false", "admin.ui": "false",
        "s3.port.iceberg": 0, "s3.port.lance": 0,
    }  # fmt: skip
    return [f"-{name}={value}" for name, value in arguments.items()]


def is_ready(port: int, process: subprocess.Popen) -> bool:
    """Wait until the S3 server answers; False if it ended, as when a port was taken after all."""
    client = make_client(port)
    for _ in range(300):
        try:
            client.list_buckets()
        except (BotoCoreError, ClientError):
            if process.poll() is not None:
                return False
            time.sleep(0.2)
        else:
            return True
    raise TimeoutError("the S3 server does not answer")


def make_client(port: int):
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=REGION,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


def upload(folder: Path, port: int, bucket: str, prefix: str) -> None:
    """Copy the files below a folder to below a prefix."""
    client = make_client(port)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        client.upload_file(str(file), bucket, f"{prefix}/{file.relative_to(folder).as_posix()}")


def download(port: int, bucket: str, prefix: str, folder: Path) -> Path:
    """Copy what is below a prefix to a folder; returns the folder."""
    client = make_client(port)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", ()):
            file = folder / entry["Key"].removeprefix(f"{prefix}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, entry["Key"], str(file))
    return folder


@contextmanager
def moto_server() -> Iterator[int]:
    """AWS as moto plays it, in this process; yields its port."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    # Its state belongs to the process, and other tests have left theirs.
    urlopen(Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")).close()
    try:
        yield port
    finally:
        server.stop()


@contextmanager
def aws_settings(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Have this process and its children use a server; yields the environment."""
    for name, value in aws_env(port).items():
        monkeypatch.setenv(name, value)
    forget()
    yield {**os.environ}
    forget()


def forget() -> None:
    """Read the AWS settings anew."""
    for known in (_session, _make_client, bucket_region):
        known.cache_clear()


def make_bucket(port: int, name: str) -> str:
    """Make a bucket in the region of `aws_env`."""
    make_client(port).create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    return name
