"""What browsers are given: the page, its files, what they compute with, and what they may do."""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files

import jinja2
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from verger.recognise.names import find_name

STATIC = {
    "app.css": "text/css",
    "app.js": "text/javascript",
    "worker.js": "text/javascript",
    "phone.js": "text/javascript",
    "onnxruntime/ort.mjs": "text/javascript",
    "icon.svg": "image/svg+xml",
    "app.webmanifest": "application/manifest+json",
}
"""What is served as it is, and its media type."""

FOLDER = files("verger.recognise") / "server" / "static"

FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

COMPUTING = "/phone.js"
"""The script that computes in the browser. It has a thread and a policy of its own: WebAssembly may
be compiled there, and nowhere else."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class OnPhone:
    """What browsers compute with: the recogniser as ONNX, and ONNX Runtime Web as WebAssembly.

    The address of each has its digest, so that browsers may keep them for ever.

    Args:
        model: network and recogniser as ONNX.
    """

    def __init__(self, model: bytes) -> None:
        runtime = (FOLDER / "onnxruntime/ort.wasm.gz").read_bytes()
        self.megabytes = round((len(model) + len(runtime)) / 10**6)
        self.model, self.runtime = (
            f"/on-phone/{hashlib.sha256(data).hexdigest()[:16]}.{kind}"
            for data, kind in ((model, "onnx"), (runtime, "wasm"))
        )
        packed = {**FOR_EVER, "Content-Encoding": "gzip"}
        self.routes = [
            Route(self.model, _constant(model, "application/octet-stream", FOR_EVER)),
            Route(self.runtime, _constant(runtime, "application/wasm", packed)),
        ]


class SecurityHeaders:
    """Adds `HEADERS` to every answer, errors too; what is not marked otherwise is not stored."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if scope["path"] == COMPUTING:
                    allowed = POLICY.replace("script-src", "script-src 'wasm-unsafe-eval'")
                    headers["Content-Security-Policy"] = allowed
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers)


def static_routes() -> list[Route]:
    """What answers for the files of the page."""
    return [
        Route(
            f"/{name}", _constant((FOLDER / name).read_bytes(), kind, {"Cache-Control": "no-cache"})
        )
        for name, kind in STATIC.items()
    ]


def make_pages(
    labels: tuple[str, ...], *, corrects: bool, on_phone: OnPhone | None
) -> dict[str, str]:
    """The page by language; names of classes are text in it, whatever they hold."""
    texts = json.loads((FOLDER / "texts.json").read_text(encoding="utf-8"))
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (FOLDER / "page.html.j2").read_text(encoding="utf-8")
    )
    pages = {}
    for language in ("en", "fr"):
        words = {key: text[language] for key, text in texts.items()}
        if language == "fr":
            # No line begins with what French writes after a space.
            words = {key: re.sub(" (?=[:;?!])", "\u00a0", text) for key, text in words.items()}
        pages[language] = template.render(
            words=words,
            language=language,
            labels=labels,
            names=[name and name.model_dump() for name in map(find_name, labels)],
            corrects=corrects,
            on_phone=on_phone,
        )
    return pages


def _constant(
    data: bytes, kind: str, headers: dict[str, str]
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(data, media_type=kind, headers=headers)

    return answer
