"""Builds and runs ``simgrid_flows.cpp`` where SimGrid is: under SIMGRID_ROOT, by default /usr."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Flows

Events = tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]
"""Changes of capacity: times in ascending order, links, bytes/s from then on."""
NO_EVENTS: Events = (np.zeros(0), np.zeros(0, np.int32), np.zeros(0))
SOURCE = Path(__file__).with_name("simgrid_flows.cpp")


@dataclass(frozen=True)
class Run:
    """SimGrid's finish times; processor seconds of its run alone and of the whole process; memory of the process."""

    finish: NDArray[np.float64]
    seconds: float
    process_seconds: float
    memory_bytes: int


@functools.cache
def program() -> Path | None:
    """Compile the peer; None where there is no SimGrid or no compiler."""
    root = Path(os.environ.get("SIMGRID_ROOT", "/usr"))
    if shutil.which("g++") is None or not (root / "include/simgrid/s4u.hpp").exists():
        return None
    built = Path(tempfile.mkdtemp()) / "simgrid_flows"
    folders = [folder for folder in (root / "lib", *(root / "lib").glob("*-linux-gnu")) if folder.exists()]
    flags = [flag for folder in folders for flag in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
    command = ["g++", "-O2", "-std=c++17", f"-I{root / 'include'}", SOURCE, "-o", built, *flags, "-lsimgrid"]
    subprocess.run([*map(str, command), "-Wl,--allow-shlib-undefined"], check=True)
    return built


def version() -> str:
    """Return SimGrid's version as its header has it."""
    header = (Path(os.environ.get("SIMGRID_ROOT", "/usr")) / "include/simgrid/version.h").read_text()
    number = [line.split()[-1] for line in header.splitlines() if line.startswith("#define SIMGRID_VERSION_M")]
    return ".".join(number[:2])


def solve(flows: Flows, limit_s: float | None = None, events: Events = NO_EVENTS) -> Run | None:
    """Run unweighted flows while capacities change; None when that takes longer than ``limit_s``."""
    built = program()
    assert built is not None and flows.weight is None
    folders = Path(os.environ.get("SIMGRID_ROOT", "/usr")) / "lib"
    paths = [str(folder) for folder in (folders, *folders.glob("*-linux-gnu"))]
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "in", Path(folder) / "out"
        head = [len(flows.capacity), flows.n, len(flows.route_links), flows.ends.max() + 1]
        ints = [np.array(head), flows.route_ptr, flows.route_links, *flows.ends]
        head_b, ptr_b, links_b, source_b, target_b = (part.astype(np.int64).tobytes() for part in ints)
        floats = [flows.capacity.tobytes(), flows.size.tobytes(), flows.start.tobytes()]
        time, link, capacity = events
        changes = [np.array([len(time)]), time, link.astype(np.int64), capacity]
        changes_b = [part.tobytes() for part in changes]
        given.write_bytes(b"".join([head_b, floats[0], ptr_b, links_b, *floats[1:], source_b, target_b, *changes_b]))
        environment = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(paths)}
        try:
            subprocess.run(
                [built, given, answer], check=True, timeout=limit_s, env=environment, stderr=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return None
        result = np.fromfile(answer)
    return Run(result[3:], float(result[0]), float(result[1]), int(result[2]))
