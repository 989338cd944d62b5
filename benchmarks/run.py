"""``moesim`` as a user starts it: ``python -m benchmarks.run [SCENARIO ...]``, medians of ten.

Seconds on the clock until the verdict is on the screen and until the page is written, with what was compiled before and
with empty caches (where nothing then goes on behind the run); processor seconds of import, simulation and page; and
what ``explain`` and ``compare`` take to print saved numbers. To be run on a quiet machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import Row, machine, write

TIMES = 10
SCENARIOS = ("quickstart", "deepseek-v3-prefill-ep64")
CODE = """
import json, sys, time
times = [time.process_time()]
import moesim
from moesim.cli.first_run import make_ready
scenario = moesim.load_scenario(sys.argv[1])
make_ready(scenario)
import moesim.run
times.append(time.process_time())
result = moesim.simulate(scenario)
times.append(time.process_time())
from moesim.report import render_run
render_run(result)
times.append(time.process_time())
print(json.dumps([len(result.flows["size"]), *(b - a for a, b in zip([0.0, *times[1:]], times[1:]))]))
"""


def seconds(arguments: list[str], **variables: str) -> tuple[float, float]:
    """Run ``moesim`` and return when the first word stood on the screen and when it ended."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | variables
    begin = time.perf_counter()
    command = [sys.executable, "-m", "moesim", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.perf_counter() - begin
        process.stdout.read()
    assert process.returncode == 0, arguments
    return first, time.perf_counter() - begin


def medians(arguments: list[str], times: int = TIMES, **variables: str) -> list[float]:
    """Return the medians of both over so many runs."""
    return np.median([seconds(arguments, **variables) for _ in range(times)], axis=0).tolist()


def of_scenario(scenario: str, folder: Path) -> list[Row]:
    """Time one scenario."""
    import json

    typed = ["run", scenario, "--out", str(folder / scenario)]
    seconds(typed, MOESIM_BACKGROUND="0")
    command = [sys.executable, "-c", CODE, scenario]
    parts = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(TIMES)]
    flows, imports, simulation, page = np.median(parts, axis=0).tolist()
    verdict, whole = medians(typed, MOESIM_BACKGROUND="0")
    empty = []
    for _ in range(TIMES):
        with tempfile.TemporaryDirectory() as cache:
            empty.append(seconds(typed, MOESIM_BACKGROUND="0", NUMBA_CACHE_DIR=cache)[0])
    figures = {
        "verdict": verdict,
        "page": whole,
        "verdict with empty caches": float(np.median(empty)),
        "processor seconds of imports": imports,
        "processor seconds of the simulation": simulation,
        "processor seconds of the page": page,
    }
    return [Row(f"{scenario}: {what}", int(flows), value) for what, value in figures.items()]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [row for scenario in sys.argv[1:] or SCENARIOS for row in of_scenario(scenario, folder)]
        run = str(folder / (sys.argv[1:] or SCENARIOS)[0])
        rows.append(Row("explain", 1, medians(["explain", run, "dispatch_time_s"])[1]))
        rows.append(Row("compare", 1, medians(["compare", run, run])[1]))
    write("run", rows, machine())


if __name__ == "__main__":
    main()
