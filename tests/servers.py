"""A server of an output, as `verger serve` starts it, and what it is asked."""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers import VERGER, running


@contextmanager
def serving(output: Path, *options: object, authority: Path | None = None) -> Iterator[int]:
    """The port of a server that is ready; with TLS, its certificate is of an authority."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running([*VERGER, "serve", output, "--port", port, *options]) as process:
        for _ in range(2000):
            try:
                if ask(port, "/health", authority=authority)[0] == 200:
                    break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        else:
            pytest.fail("the server does not answer")
        yield port


def ask(
    port: int,
    path: str,
    body: bytes | None = None,
    kind: str = "image/jpeg",
    authority: Path | None = None,
) -> tuple[int, Any, dict[str, str]]:
    """Status, content and headers; a body is posted."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    if authority:
        context = ssl.create_default_context(cafile=authority)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
    headers = {"Content-Type": kind} if body is not None else {}
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    is_json = "json" in (answer.getheader("Content-Type") or "")
    return answer.status, json.loads(data) if is_json else data, dict(answer.getheaders())
