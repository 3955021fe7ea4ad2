"""The page and what it asks for: routes, limits, and the errors that they are answered with."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from verger.errors import VergerError
from verger.images.thumbnails import find_images, thumbnail, thumbnail_loader
from verger.output.layout import Output, Reason, Rejection
from verger.output.manifest import read_manifest
from verger.recognise.names import find_name
from verger.recognise.recogniser import Answer
from verger.recognise.server.corrections import keep
from verger.recognise.server.desk import BusyError, Desk, LateError
from verger.recognise.server.openapi import describe
from verger.recognise.server.pages import OnPhone, SecurityHeaders, make_pages, static_routes
from verger.store.location import Location

PICTURE_SIDE = 160
"""Pixels of the longer side of similar pictures."""

KEPT_PICTURES = 1000
"""Similar pictures that are kept in memory, of some kilobytes each."""

STATUS_OF_REASON = {
    Reason.EMPTY: 400,
    Reason.NOT_AN_IMAGE: 415,
    Reason.UNSUPPORTED: 415,
    Reason.TOO_LARGE: 413,
}
"""All other reasons are 422: an image of a known format that cannot be read."""


def make_app(
    output: Output,
    desk: Desk,
    *,
    max_bytes: int,
    corrections: Location | None,
    on_phone: OnPhone | None,
) -> Starlette:
    """The application that serves an output.

    Args:
        output: whose recogniser answers.
        desk: where photographs are looked at; its patience is that for their bytes, too.
        max_bytes: of a photograph.
        corrections: where photographs go whose sender says what they show; None to refuse them.
        on_phone: what browsers compute with, if they may.
    """
    server = _Server(output, desk, max_bytes, corrections, on_phone)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(desk.close)

    app = Starlette(
        routes=[
            Route("/", server.page),
            *static_routes(),
            Route("/openapi.json", server.openapi),
            Route("/health", server.health),
            Route("/api/classify", server.classify, methods=["POST"]),
            Route("/api/corrections", server.correct, methods=["POST"]),
            Route("/pictures/{number:int}", server.picture),
            *(on_phone.routes if on_phone else ()),
        ],
        exception_handlers={HTTPException: _explain, Exception: _explain_defect},
        lifespan=lifespan,
    )
    app.add_middleware(SecurityHeaders)
    return app


class _Server:
    def __init__(
        self,
        output: Output,
        desk: Desk,
        max_bytes: int,
        corrections: Location | None,
        on_phone: OnPhone | None,
    ) -> None:
        self.desk, self.max_bytes, self.corrections = desk, max_bytes, corrections
        self.recogniser = desk.recogniser
        self.numbers = {path: number for number, path in enumerate(self.recogniser.paths)}
        self.pages = make_pages(
            self.recogniser.labels, corrects=corrections is not None, on_phone=on_phone
        )
        self.loader = thumbnail_loader(Location.parse(read_manifest(output).input), PICTURE_SIDE)
        self.images, _ = find_images(output, set(self.recogniser.paths))
        self.thumbnail = lru_cache(KEPT_PICTURES)(self._make_thumbnail)

    async def page(self, request: Request) -> Response:
        """The page, in the language that the address or the browser asks for."""
        language = request.query_params.get("lang", "")
        if language not in self.pages:
            accepted = request.headers.get("accept-language", "")
            language = "fr" if accepted.lower().startswith("fr") else "en"
        page, headers = self.pages[language], {"Vary": "Accept-Language"}
        return Response(page, media_type="text/html", headers=headers)

    async def openapi(self, _: Request) -> Response:
        """What can be asked, for programs."""
        return JSONResponse(describe(self.max_bytes, self.recogniser.labels))

    async def health(self, _: Request) -> Response:
        """That it runs, and how long the queue is."""
        return JSONResponse({"status": "ok", "waiting": self.desk.taken})

    async def classify(self, request: Request) -> Response:
        """What a photograph shows."""
        data = await self._read_photograph(request)
        answer = await _in_time(self.desk.answer(data))
        return JSONResponse(self._describe(answer))

    async def correct(self, request: Request) -> Response:
        """Keep a photograph under the class that its sender names, for the next run.

        Raises:
            HTTPException: it is not kept, for a reason that the sender or the server has.
        """
        if self.corrections is None:
            raise HTTPException(403, "This server keeps no photographs.")
        label = request.query_params.get("label", "")
        if label not in self.recogniser.labels:
            raise HTTPException(422, "The label is none of the classes.")
        if request.query_params.get("consent") != "yes":
            raise HTTPException(422, "Nothing is kept without consent=yes.")
        data = await self._read_photograph(request)
        pixels = await _in_time(self.desk.pixels(data))
        try:
            await run_in_threadpool(keep, pixels, label, self.corrections)
        except (OSError, VergerError) as error:
            why = error.message if isinstance(error, VergerError) else f"{error.strerror}."
            raise HTTPException(507, f"The photograph cannot be kept: {why}") from error
        return JSONResponse({"kept": label}, 201)

    async def picture(self, request: Request) -> Response:
        """A reference image, small."""
        number = request.path_params["number"]
        if number >= len(self.recogniser.paths):
            raise HTTPException(404, "There is no such picture.")
        webp = await run_in_threadpool(self.thumbnail, number)
        headers = {"Cache-Control": "private, max-age=86400"}
        return Response(webp, media_type="image/webp", headers=headers)

    async def _read_photograph(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            HTTPException: it is too long, too slow, empty, or said to be no image.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not kind.startswith("image/") and kind != "application/octet-stream":
            raise HTTPException(
                415, "Send the photograph itself, with a content type such as image/jpeg."
            )
        too_long = HTTPException(413, f"A photograph may have {self.max_bytes:,} bytes.")
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self.max_bytes:
            raise too_long

        async def read() -> bytes:
            data = bytearray()
            async for chunk in request.stream():
                data += chunk
                if len(data) > self.max_bytes:
                    raise too_long
            return bytes(data)

        try:
            data = await asyncio.wait_for(read(), self.desk.seconds)
        except asyncio.TimeoutError as error:
            raise HTTPException(408, "The photograph arrives too slowly.") from error
        except ClientDisconnect as error:
            raise HTTPException(400, "The photograph did not arrive whole.") from error
        if not data:
            raise HTTPException(400, "There is no photograph in the request.")
        return data

    def _make_thumbnail(self, number: int) -> bytes:
        webp = thumbnail(self.loader, self.images[self.recogniser.paths[number]])
        if webp is None:  # now; what is raised is not kept in memory
            raise HTTPException(404, "The image has gone.")
        return webp

    def _describe(self, answer: Answer) -> dict[str, Any]:
        described = answer.model_dump()
        for guess in described["guesses"]:
            name = find_name(guess["label"])
            guess["name"] = name.model_dump() if name else None
        for similar in described["similar"]:
            similar["picture"] = f"/pictures/{self.numbers[similar['path']]}"
        return described


async def _in_time(work: Awaitable[Any]) -> Any:
    """What the desk gives.

    Raises:
        HTTPException: it is too busy or too late, or the photograph cannot be read.
    """
    try:
        found = await work
    except BusyError as error:
        raise HTTPException(429, "Too many photographs at once.", {"Retry-After": "1"}) from error
    except LateError as error:
        raise HTTPException(503, "The answer took too long.", {"Retry-After": "5"}) from error
    if isinstance(found, Rejection):
        status = STATUS_OF_REASON.get(found.reason, 422)
        raise HTTPException(status, f"{found.reason}: {found.detail}")
    return found


async def _explain(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette hands over what was asked for
    return _problem(error.status_code, error.detail, dict(error.headers or {}))


async def _explain_defect(_: Request, error: Exception) -> Response:
    return _problem(500, f"{type(error).__name__}: a defect of verger.", {})


def _problem(status: int, detail: str, headers: dict[str, str]) -> Response:
    """An error as RFC 9457 writes them."""
    data = {"status": status, "detail": detail}
    kind = "application/problem+json"
    return Response(json.dumps(data), status, headers=headers, media_type=kind)
