"""What `verger serve` holds: latency of one phone, the rate of the machine, and four times that.

    .venv/bin/python benchmarks/serving.py PHOTOGRAPHS OUTPUT… [--seconds 20] [--json FILE]

It starts a server on this machine, sends it the photographs in turn, and stops it. First one at a
time; then as many at once as there are processors, which gives the rate; then, at half of the rate
and at four times the rate, at even intervals whether or not answers have come.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, tell

Result = tuple[int, float]


def ask(port: int, photograph: bytes) -> Result:
    """Status and milliseconds of an answer; 0 where the connection broke."""
    started = time.monotonic()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(
            "POST", "/api/classify", photograph, {"Content-Type": "application/octet-stream"}
        )
        status = connection.getresponse().status
        connection.close()
    except OSError:
        status = 0
    return status, (time.monotonic() - started) * 1000


def at_once(port: int, photographs: list[bytes], clients: int, seconds: float) -> list[Result]:
    """So many clients, each of which asks again when it has its answer."""
    end = time.monotonic() + seconds

    def client(first: int) -> list[Result]:
        results = []
        for photograph in cycle(photographs[first:] + photographs[:first]):
            if time.monotonic() > end:
                break
            results.append(ask(port, photograph))
        return results

    with ThreadPoolExecutor(clients) as pool:
        parts = pool.map(client, [n * 7 % len(photographs) for n in range(clients)])
        return [result for part in parts for result in part]


def at_rate(port: int, photographs: list[bytes], rate: float, seconds: float) -> list[Result]:
    """So many a second, whatever has been answered."""
    started = time.monotonic()
    with ThreadPoolExecutor(200) as pool:
        waiting = []
        for number in range(round(rate * seconds)):
            time.sleep(max(started + number / rate - time.monotonic(), 0))
            waiting.append(pool.submit(ask, port, photographs[number % len(photographs)]))
        return [future.result() for future in waiting]


def summarize(results: list[Result], seconds: float) -> dict[str, Any]:
    """Counts by status; percentiles of the answers with 200."""
    good = [milliseconds for status, milliseconds in results if status == 200]
    p50, p99 = np.percentile(good, [50, 99]) if good else (0.0, 0.0)
    return {
        "statuses": dict(sorted(Counter(status for status, _ in results).items())),
        "answers_per_second": round(len(good) / seconds, 1),
        "p50_ms": round(float(p50)),
        "p99_ms": round(float(p99)),
    }


def what_it_is(output: Path) -> dict[str, Any]:
    """The network of an output, and how many views of each photograph it computes."""
    manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    return {"network": manifest["backbone"]["name"], "views": manifest["settings"]["views"]}


def measure(output: Path, photographs: list[bytes], seconds: float) -> dict[str, Any]:
    """All loads, one after the other, on a server of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "verger", "serve", str(output), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    try:
        end = time.monotonic() + 120
        while ask(port, photographs[0])[0] != 200:
            if time.monotonic() > end or server.poll() is not None:
                raise SystemExit("The server does not start.")
            time.sleep(0.2)
        processors = os.cpu_count() or 1
        found = {"one": summarize(at_once(port, photographs, 1, seconds), seconds)}
        full = summarize(at_once(port, photographs, processors, seconds), seconds)
        rate = full["answers_per_second"]
        found["full"] = full
        for name, share in (("half", 0.5), ("four_times", 4.0)):
            found[name] = summarize(at_rate(port, photographs, rate * share, seconds), seconds)
        found["afterwards"] = summarize(at_once(port, photographs, 1, 2), 2)
        return found
    finally:
        server.terminate()
        server.wait(30)


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("outputs", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    files = sorted(file for file in given.photographs.rglob("*") if file.is_file())[:100]
    photographs = [file.read_bytes() for file in files]
    facts = machine()
    found = [
        what_it_is(output) | measure(output, photographs, given.seconds) for output in given.outputs
    ]
    tell({"machine": facts, "outputs": found}, given.json)


if __name__ == "__main__":
    main()
