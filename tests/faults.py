"""A proxy before a store that answers some requests as a bad day on S3 would."""

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


@contextmanager
def faulty(port: int, fault: Callable[[str, str], Fault | None]) -> Iterator[int]:
    """Pass requests on to a port, but for those that `fault(method, path)` answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found = fault(self.command, unquote(self.path))
            if found is None:
                self.pass_on(body)
            elif found is LOST_ANSWER:
                self.ask(body)
                self.close_connection = True
            elif found.status:
                text = f"<Error><Code>{found.code}</Code><Message>{found.code}</Message></Error>"
                answer = b"" if self.command == "HEAD" else text.encode()
                self.send_response(found.status)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            else:
                self.close_connection = True

        def ask(self, body: bytes) -> tuple[HTTPResponse, bytes]:
            there = HTTPConnection("127.0.0.1", port)
            there.request(self.command, self.path, body, dict(self.headers))
            answer = there.getresponse()
            data = answer.read()
            there.close()
            return answer, data

        def pass_on(self, body: bytes) -> None:
            answer, data = self.ask(body)
            self.send_response(answer.status)
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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
