"""What a figure depends on: the machine that it was measured on."""

import json
import os
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    model = found[1] if found else "unknown"
    return {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "processors": len(os.sched_getaffinity(0)),
        "cores": _cores(),
        "model": model,
        "load before": round(os.getloadavg()[0], 2),
    }


def _cores() -> int:
    """The real cores that this process may use; two processors may be threads of one core."""
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({Path(topology.format(cpu)).read_text() for cpu in os.sched_getaffinity(0)})


def tell(record: dict[str, Any], file: Path | None) -> None:
    """Print what was measured, and write it where asked."""
    text = f"{json.dumps(record, indent=2)}\n"
    sys.stdout.write(text)
    if file:
        file.write_text(text)
