"""What a result was measured on, and how results are written."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Row:
    """One measurement; ``ratio`` is how many times faster than the peer. None where there is nothing to say."""

    case: str
    n: int
    seconds: float
    peer: str | None = None
    peer_seconds: float | None = None
    ratio: float | None = None
    memory_bytes: int | None = None


def against(case: str, n: int, seconds: float, peer: str, peer_seconds: float, memory_bytes: int | None = None) -> Row:
    """Return a row with its ratio."""
    return Row(case, n, seconds, peer, peer_seconds, peer_seconds / seconds, memory_bytes)


def machine(**more: str) -> dict[str, Any]:
    """Return processor, cores, memory and versions."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    found = {"python": platform.python_version()}
    for name in ("numpy", "numba", "simpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "versions": found | more}


def median_cpu(run: Callable[[], Any], times: int = 3) -> float:
    """Return the median processor time of so many calls, seconds: other programs on the machine disturb it less."""
    taken = []
    for _ in range(times):
        begin = time.process_time()
        run()
        taken.append(time.process_time() - begin)
    return statistics.median(taken)


def write(name: str, rows: list[Row], about: dict[str, Any]) -> Path:
    """Write results/NAME.json and print the rows."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    for row in rows:
        print(shown(row))
    return path


def shown(row: Row) -> str:
    """Return a row as a line of text."""
    text = f"{row.case:<46} n {row.n:>9,}  {row.seconds:>10.4g} s"
    if row.peer is not None and row.peer_seconds is not None:
        text += f"  {row.peer} {row.peer_seconds:.4g} s"
    if row.ratio is not None:
        text += f"  x{row.ratio:.3g}"
    if row.memory_bytes is not None:
        text += f"  {row.memory_bytes / 2**20:.0f} MiB"
    return text
