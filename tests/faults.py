"""A proxy before a store that answers some requests as S3 would, on a bad day or always."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote


class Fault(NamedTuple):
    """An answer instead of the store's; 0 cuts the connection, -1 after the work."""

    status: int
    code: str = ""


SLOW_DOWN = Fault(503, "SlowDown")
EXPIRED = Fault(400, "ExpiredToken")
VANISHED = Fault(404, "NoSuchKey")
RESET = Fault(0)
LOST_ANSWER = Fault(-1)
WRONG_REGION = Fault(400, "AuthorizationHeaderMalformed")

_SCOPE = re.compile(r"Credential=[^/]+/\d+/(?P<region>[^/]+)/")
"""In the header Authorization, of a signature of version 4."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def faulty(
    port: int, fault: Callable[[str, str], Fault | None], region: str | None = None
) -> Iterator[int]:
    """Pass requests on to a port, but for those that `fault(method, path)` answers.

    With a region, all buckets lie there as they would on AWS: each answer names it, and what was
    signed for another one is refused.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def is_elsewhere(self) -> bool:
            signed = _SCOPE.search(self.headers.get("Authorization", ""))
            return bool(region and signed and signed["region"] != region)

        def handle_one(self) -> None:
            body = self.read_body()
            found = fault(self.command, unquote(self.path))
            if found is None and self.is_elsewhere():
                found = WRONG_REGION
            if found is None:
                self.pass_on(body)
            elif found is LOST_ANSWER:
                self.ask(body)
                self.close_connection = True
            elif found.status:
                where = f"<Region>{region}</Region>" if found is WRONG_REGION else ""
                text = f"<Code>{found.code}</Code><Message>{found.code}</Message>{where}"
                text = f"<Error>{text}</Error>"
                answer = b"" if self.command == "HEAD" else text.encode()
                self.begin(found.status)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            else:
                self.close_connection = True

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def begin(self, status: int) -> None:
            self.send_response(status)
            if region:
                self.send_header("x-amz-bucket-region", region)

        def ask(self, body: bytes) -> tuple[HTTPResponse, bytes]:
            there = HTTPConnection("127.0.0.1", port)
            chunked = "Transfer-Encoding" in self.headers
            there.request(
                self.command,
                self.path,
                iter([body]) if chunked else body,
                dict(self.headers),
                encode_chunked=chunked,
            )
            answer = there.getresponse()
            data = answer.read()
            there.close()
            return answer, data

        def pass_on(self, body: bytes) -> None:
            answer, data = self.ask(body)
            self.begin(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"transfer-encoding", "connection", "date", "server"}:
                    self.send_header(name, value)
            if answer.getheader("Content-Length") is None:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815 - as the server calls them

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
