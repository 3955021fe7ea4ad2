"""What browsers are given to compute with: the recogniser as ONNX, and what runs ONNX."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from verger.recognise.server.pages import FOLDER

MEGABYTE = 10**6

FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}


@dataclass(frozen=True)
class OnPhone:
    """Two files; the address of each has its digest, so that browsers may keep them for ever.

    Attributes:
        model: network and recogniser as ONNX.
        runtime: ONNX Runtime Web as WebAssembly, in gzip.
    """

    model: bytes = field(repr=False)
    runtime: bytes = field(
        default_factory=(FOLDER / "onnxruntime/ort.wasm.gz").read_bytes, repr=False
    )

    @cached_property
    def model_address(self) -> str:
        """Where the model is."""
        return f"/on-phone/{_digest(self.model)}.onnx"

    @cached_property
    def runtime_address(self) -> str:
        """Where the runtime is."""
        return f"/on-phone/{_digest(self.runtime)}.wasm"

    @property
    def megabytes(self) -> int:
        """Of both on their way."""
        return round((len(self.model) + len(self.runtime)) / MEGABYTE)

    def routes(self) -> list[Route]:
        """What answers for the two addresses."""

        async def model(_: Request) -> Response:
            return Response(self.model, media_type="application/octet-stream", headers=FOR_EVER)

        async def runtime(_: Request) -> Response:
            headers = {**FOR_EVER, "Content-Encoding": "gzip"}
            return Response(self.runtime, media_type="application/wasm", headers=headers)

        return [Route(self.model_address, model), Route(self.runtime_address, runtime)]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
