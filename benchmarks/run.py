"""A whole ``moesim run`` as a user starts it, and its parts: ``python -m benchmarks.run [SCENARIO ...]``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import Row, machine, write

CODE = """
import json, resource, sys, time
begin = time.process_time()
import moesim
imported = time.process_time()
result = moesim.simulate(moesim.load_scenario(sys.argv[1]))
simulated = time.process_time()
result.save(sys.argv[2])
ended = time.process_time()
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
flows = len(result.flows["size"])
print(json.dumps([flows, imported - begin, simulated - imported, ended - simulated, ended, memory]))
"""


def main() -> None:
    import json

    rows = []
    for scenario in sys.argv[1:] or ["quickstart"]:
        taken = []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-c", CODE, scenario, str(Path(folder) / "run")]
                begin = time.perf_counter()
                answer = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
                wall = time.perf_counter() - begin
            taken.append([*json.loads(answer.stdout.splitlines()[-1]), wall])
        flows, imported, simulated, saved, process, memory, _ = np.median(np.array(taken), axis=0).tolist()
        rows += [
            Row(f"{scenario}: import", int(flows), imported),
            Row(f"{scenario}: simulate", int(flows), simulated),
            Row(f"{scenario}: save", int(flows), saved),
            Row(f"{scenario}: whole process", int(flows), process, memory_bytes=int(memory)),
        ]
    write("run", rows, machine())


if __name__ == "__main__":
    main()
