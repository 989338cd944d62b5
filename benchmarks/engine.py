"""The flow engine against SimGrid on the same flows, and alone where SimGrid does not end in reasonable time.

    python -m benchmarks.engine [--quick] [--all]

Processor seconds, both sides, of the solve itself unless the case says ``process``; every finish time of SimGrid's is
compared. ``--quick`` leaves out what takes minutes, ``--all`` adds the million flows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np

from benchmarks import simgrid, workloads
from benchmarks.machine import Row, against, machine, median_cpu, shown, write
from benchmarks.workloads import Flows

ALONE = """
import json, resource, sys, time
from benchmarks import workloads
from moesim.network import solve_flows, solve_within
solve_flows(**workloads.pairs(16).arguments())
flows = {flows}
arguments = flows.arguments()
tolerance = {tolerance}
begin = time.process_time()
if tolerance:
    del arguments["latency"]
    finish = solve_within(tolerance=tolerance, **arguments).finish
else:
    finish = solve_flows(**arguments)
taken = time.process_time() - begin
print(json.dumps([flows.name, flows.n, taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, finish.max()]))
"""


def alone(flows: str, tolerance: float = 0.0) -> Row:
    """Solve a workload in a process of its own, for its memory."""
    code = ALONE.format(flows=flows, tolerance=tolerance)
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    name, n, seconds, memory, _ = json.loads(answer)
    if tolerance:
        name += f", tolerance {tolerance:g}"
    row = Row(name, n, seconds, memory_bytes=memory)
    print(shown(row), flush=True)
    return row


def beside_simgrid(flows: Flows, times: int) -> list[Row]:
    """Solve a workload here and by SimGrid; refuse a flow that differs by more than 1e-9."""
    from moesim.network import solve_flows

    finish = solve_flows(**flows.arguments())
    seconds = median_cpu(lambda: solve_flows(**flows.arguments()), times)
    if simgrid.program() is None:
        return [Row(flows.name, flows.n, seconds)]
    runs = [run for run in (simgrid.solve(flows) for _ in range(times if flows.n < 5000 else 1)) if run is not None]
    if np.abs(runs[0].finish / finish - 1).max() > 1e-9:
        raise SystemExit(f"{flows.name}: a flow differs from SimGrid's")
    peer = f"SimGrid {simgrid.version()}"
    rows = [against(flows.name, flows.n, seconds, peer, float(np.median([run.seconds for run in runs])))]
    print(shown(rows[0]), flush=True)
    return rows


def whole_process() -> Row:
    """The 64-GPU case from nothing to the answer, the kernels' cache being warm."""
    code = "from benchmarks import workloads as w; from moesim.network import solve_flows; import resource; "
    code += "solve_flows(**w.pairs(64).arguments()); r = resource.getrusage(resource.RUSAGE_SELF); "
    code += "print(r.ru_utime + r.ru_stime)"
    taken = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        taken.append(float(done.stdout))
    seconds = float(np.median(taken))
    flows = workloads.pairs(64)
    if simgrid.program() is None:
        return Row("64 GPUs, whole process", flows.n, seconds)
    run = simgrid.solve(flows)
    assert run is not None
    return against("64 GPUs, whole process", flows.n, seconds, f"SimGrid {simgrid.version()}", run.process_seconds)


def compiling() -> Row:
    """First call on a machine: the kernels are compiled into an empty cache."""
    code = "import tempfile, os; os.environ['NUMBA_CACHE_DIR'] = tempfile.mkdtemp(); "
    code += "from benchmarks import workloads as w; from moesim.network import solve_flows; "
    code += "solve_flows(**w.pairs(16).arguments()); import time; print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return Row("kernels compiled, once per machine", 240, float(done.stdout))


def table_of_equal_messages() -> list[Row]:
    """A uniform all-to-all on one switch by classes: what ``moesim bw`` runs."""
    from moesim.cluster import build_fabric
    from moesim.cluster.topology_spec import LeafSpineTopology
    from moesim.timeline.uniform_alltoall import alltoall_table

    rows = []
    for nodes in (4, 32, 128, 512):
        spec = LeafSpineTopology.model_validate(
            {
                "kind": "leaf-spine",
                "gpu": "h800",
                "nodes": nodes,
                "nodes_per_leaf": nodes,
                "nvlink": {"bandwidth": "200GB/s"},
                "nic": {"bandwidth": "50GB/s"},
                "leaf_spine": {"spines": 1},
            }
        )
        fabric = build_fabric(spec, f"{nodes} nodes on one switch")
        alltoall_table(fabric, "nccl-direct", [1 << 30])
        seconds = median_cpu(lambda fabric=fabric: alltoall_table(fabric, "nccl-direct", [1 << 30]), 5)
        rows.append(
            Row(f"moesim bw, {fabric.n_ranks} ranks, one switch", fabric.n_ranks * (fabric.n_ranks - 1), seconds)
        )
    return rows


def main() -> None:
    quick, everything = "--quick" in sys.argv, "--all" in sys.argv
    begin = time.perf_counter()
    rows = [compiling(), whole_process()]
    rows += beside_simgrid(workloads.pairs(64), 5) + beside_simgrid(workloads.switch(64, "uniform"), 3)
    if not quick:
        rows += beside_simgrid(workloads.pairs(128), 3) + beside_simgrid(workloads.leaf_spine(128), 3)
    rows += table_of_equal_messages()
    for flows in ("pairs(128, 'uniform')", "switch(128, 'uniform')", "pairs(256)", "trees(64)", "trees(256)"):
        rows.append(alone(f"workloads.{flows}"))
    if not quick:
        for flows in ("pairs(512)", "trees(1024)", "trees(2048)"):
            rows.append(alone(f"workloads.{flows}"))
        rows.append(alone("workloads.pairs(1024)", 0.01))
    if everything:
        rows.append(alone("workloads.pairs(1024)"))
    more = {"SimGrid": simgrid.version()} if simgrid.program() is not None else {}
    path = write("engine", rows, machine(**more))
    print(f"{path} in {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
