"""The server under photographs as phones make them, behind TLS, and under senders that are slow."""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from certificates import make_certificates
from servers import ask, serving

PATIENT = ("--seconds", 120)
"""A busy machine is no slow sender."""


@pytest.fixture(scope="module")
def port(sound: Path) -> Iterator[int]:
    with serving(sound, *PATIENT) as port:
        yield port


def photograph(width: int, height: int, patch: int = 99) -> bytes:
    """A JPEG of so many pixels, of patches of colours; small ones take many bytes."""
    random = np.random.default_rng(0)
    patches = random.integers(0, 256, (height // patch, width // patch, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(patches).resize((width, height)).save(data, "JPEG", quality=90)
    return data.getvalue()


@pytest.mark.parametrize(("width", "height"), [(4080, 3060), (8160, 6120)])
def test_photographs_of_12_and_50_megapixels_are_answered(
    port: int, width: int, height: int
) -> None:
    data = photograph(width, height)
    assert len(data) < 10 * 2**20
    status, answer, _ = ask(port, "/api/classify", data)
    assert status == 200, answer
    assert len(answer["guesses"]) == 4


@pytest.mark.parametrize(("width", "height"), [(8660, 5780), (20_000, 15_000)])
def test_more_megapixels_are_refused_by_their_header(port: int, width: int, height: int) -> None:
    data = bytearray(photograph(990, 990))
    frame = data.index(b"\xff\xc0")  # the start of the frame has height and width
    data[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    begun = time.monotonic()
    status, problem, _ = ask(port, "/api/classify", bytes(data))
    assert (status, problem["status"]) == (413, 413)
    assert "too_large" in problem["detail"]
    assert time.monotonic() - begun < 60
    assert ask(port, "/health")[1] == {"status": "ok", "waiting": 0}


@pytest.mark.parametrize("chunked", [False, True])
def test_two_megabytes_that_come_slowly_are_taken_in_time(port: int, chunked: bool) -> None:
    data = photograph(2000, 1500, patch=1)
    assert 2 * 2**20 < len(data) < 10 * 2**20
    answer = send_slowly(port, data, seconds=3, chunked=chunked)
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("chunked", [False, True])
def test_two_megabytes_that_come_too_slowly_are_given_up(sound: Path, chunked: bool) -> None:
    with serving(sound, "--seconds", 3) as port:
        answer = send_slowly(port, bytes(2 * 2**20), seconds=60, chunked=chunked)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert ask(port, "/health")[1] == {"status": "ok", "waiting": 0}


def test_what_never_ends_is_given_up_at_the_limit(port: int) -> None:
    head = "POST /api/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"100000\r\n" + bytes(2**20) + b"\r\n"
        try:
            for _ in range(64):
                connection.sendall(piece)
        except OSError:  # it has closed the connection, as it should
            pass
        else:
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert ask(port, "/health")[1] == {"status": "ok", "waiting": 0}


def send_slowly(port: int, data: bytes, *, seconds: float, chunked: bool) -> bytes:
    """The beginning of the answer to a photograph that is sent in twenty pieces."""
    kind = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data)}"
    head = f"POST /api/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n{kind}\r\n\r\n"
    step = len(data) // 20 + 1
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        connection.sendall(head.encode())
        connection.settimeout(seconds / 20)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
            try:
                connection.sendall(framed)
                return connection.recv(100)
            except TimeoutError:  # no answer yet: that was the pause
                continue
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        connection.settimeout(300)
        return connection.recv(100)


def test_with_a_certificate_clients_that_verify_it_are_answered(
    sound: Path, orchard: Path, tmp_path: Path
) -> None:
    tls = make_certificates(tmp_path)
    photo = next(orchard.rglob("*.jpg"))
    with serving(sound, *PATIENT, *tls, authority=tmp_path / "ca.pem") as port:
        status, answer, _ = ask(
            port, "/api/classify", photo.read_bytes(), authority=tmp_path / "ca.pem"
        )
        assert (status, answer["guesses"][0]["label"]) == (200, photo.parent.name)
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(port, "/health", authority=tmp_path / "other.pem")
        with pytest.raises((OSError, http.client.HTTPException)):  # nothing is said in the clear
            ask(port, "/health")
