"""How fast are images read from a store, with and without latency, next to a local folder?

    .venv/bin/python benchmarks/store.py FOLDER [--images 2000] [--delay 40] [--repeats 3]
        [--json FILE]

A real S3 server runs on this machine and takes its share of the processors; the delay is added to
every request by a proxy, which does so too.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine
from photographs import link_images
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from stores import aws_env, make_bucket, seaweedfs, upload

console = Console()


@contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """A proxy before a port of this machine that holds back what clients send; yields its port."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(port, seconds, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is seen
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(port: int, seconds: float, ready: Any) -> None:
    async def serve() -> None:
        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pass_on(reader, back, seconds), _pass_on(there, writer, 0))

        server = await asyncio.start_server(connect, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    """Copy a stream; each piece leaves `seconds` after it came, however many are on the way."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def send() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    sender = asyncio.create_task(send())
    try:
        while True:
            data = await reader.read(65536)
            waiting.put_nowait((loop.time() + seconds, data))
            if not data:
                break
        await sender
    except ConnectionError:
        writer.close()
        sender.cancel()


def rate(source: str, env: dict[str, str]) -> float:
    """Images a second of a run, while it extracts."""
    with tempfile.TemporaryDirectory() as output:
        done = subprocess.run(  # noqa: S603 - verger itself
            [sys.executable, "-m", "verger", "run", source, output, "--json"],
            env=env, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    return float(json.loads(done.stdout)["images_per_second"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--delay", type=float, default=40, help="milliseconds a request")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    options = parser.parse_args()
    facts = machine()
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / "images"
        count = options.images
        link_images(options.folder, local, count)
        with (
            seaweedfs(Path(scratch) / "store/weed") as port,
            delayed(port, options.delay / 1000) as slow,
        ):
            upload(local, port, make_bucket(port, "orchard"), "in")
            places = {
                "local": (str(local), {}),
                "s3": ("s3://orchard/in", aws_env(port)),
                "delayed": ("s3://orchard/in", aws_env(slow)),
            }
            for _ in range(options.repeats):
                for name, (source, aws) in places.items():
                    rates.setdefault(name, []).append(rate(source, {**os.environ, **aws}))
    table = Table("images from", "images/s", "against local", title=f"{count} images")
    base = median(rates["local"])
    for name, found in rates.items():
        table.add_row(name, f"{median(found):.1f}", f"{median(found) / base:.2f}")
    console.print(table)
    if options.json:
        sizes = {"images": count, "delay": options.delay, "repeats": options.repeats}
        result = facts | sizes | {"images_per_second": rates}
        options.json.write_text(f"{json.dumps(result, indent=2)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
