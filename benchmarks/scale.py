"""A whole simulated run against ranks, flows, tokens and layers: time, peak memory, and what ports give up.

    python -m benchmarks.scale               # five minutes on two cores; --up-to 1024 for less

Every point is a process of its own, so its peak memory is its own too; the first one only compiles. DeepSeek-V3's
layer on H800 in a multi-plane fat tree, one EP group over all ranks, top 8 in 4 nodes, log-normal popularity; 256
experts, or as many as ranks where those are more (one expert per rank), so that every rank computes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.machine import Row, against, machine, write

PAIRS, PORTS = (64, 128, 256, 512, 1024, 2048), (64, 256, 1024, 2048, 4096, 16_384)
# Tokens per rank, and where every flow by itself is run beside the flows per port.
ALGORITHMS = {
    "deepep-normal": (4096, (64, 256, 1024)),
    "nccl-direct": (1024, (64, 256)),
    "deepep-low-latency": (128, (64, 256)),
}
STEPPED = (512,)
TOPOLOGY = """
kind: multi-plane
gpu: h800
nodes: {nodes}
gpus_per_node: 8
nodes_per_leaf: 32
nvlink: {{bandwidth: 200GB/s, latency: 3.33us}}
nic: {{bandwidth: 400Gb/s, latency: 2.8us}}
leaf_spine: {{spines: 32, oversubscription: 1, latency: 0.9us}}
routing: spray
"""


def one(point):
    """Simulate one point and return its figures."""
    import moesim

    with tempfile.TemporaryDirectory() as folder:
        topology = Path(folder) / "cluster.yaml"
        topology.write_text(TOPOLOGY.format(nodes=max(point["ranks"] // 8, 2)))
        scenario = moesim.load_scenario(
            {
                "name": "scale",
                "cluster": {"topology": str(topology), "flows": point["flows"]},
                "parallel": {"ep": point["ranks"]},
                "model": {"preset": "deepseek-v3", "n_experts": max(256, point["ranks"])},
                "routing": {"kind": "v3", "top_k": 8, "groups": "node", "top_groups": 4},
                "workload": {
                    "synthetic": {"kind": "lognormal", "sigma": 0.6},
                    "tokens_per_rank": point["tokens"],
                    "layers_simulated": point["layers"],
                },
                "alltoall": {"algorithm": point["algorithm"], "dispatch_dtype": "fp8", "combine_dtype": "bf16"},
                "network": {"tolerance": point["tolerance"]},
            }
        )
        began, cpu = time.perf_counter(), time.process_time()
        result = moesim.simulate(scenario)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    names = ("layer_time_s", "dispatch_kernel_time_s", "step_time_s")
    figures = {name: result.summary[name] for name in names}
    return {"seconds": seconds, "cpu_seconds": cpu, "memory_bytes": peak, **figures}


def measured(**changes):
    """Run one point in a process of its own."""
    point = {"ranks": 64, "flows": "pairs", "tokens": 4096, "layers": 1, "algorithm": "deepep-normal", "tolerance": 0}
    point |= changes
    command = [sys.executable, "-m", "benchmarks.scale", "--one", json.dumps(point)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(answer.stdout.splitlines()[-1])
    print(point, {name: value if value < 1 else round(value, 1) for name, value in found.items()}, flush=True)
    return found


def as_row(case, n, found, exact=None):
    """A row; ``exact`` is the same point with every flow by itself, and the case says how far off the layer time is."""
    figures = found["seconds"], found["memory_bytes"]
    if exact is None:
        return Row(case, n, figures[0], memory_bytes=figures[1])
    error = found["layer_time_s"] / exact["layer_time_s"] - 1
    words = f"{case}, layer time {100 * error:+.2f} %"
    return against(words, n, figures[0], "every flow by itself", exact["seconds"], memory_bytes=figures[1])


def ranks(up_to):
    """One layer, every pair and per port, and how far the second is off where both run."""
    rows, exact = [], {}
    for n in (n for n in PAIRS if n <= up_to):
        exact["deepep-normal", n] = found = measured(ranks=n)
        rows.append(as_row("ranks, every flow by itself", n, found))
    for n in (n for n in PORTS if n <= up_to):
        for algorithm, (tokens, compared) in ALGORITHMS.items():
            if algorithm != "deepep-normal" and n not in compared:
                continue
            common = {"ranks": n, "algorithm": algorithm, "tokens": tokens}
            found = measured(flows="ports", **common)
            if n in compared and (algorithm, n) not in exact:
                exact[algorithm, n] = measured(**common)
            peer = exact.get((algorithm, n)) if n in compared else None
            rows.append(as_row(f"ranks, flows per port, {algorithm}", n, found, peer))
    return rows


def stepped(up_to):
    """One flow per pair of ranks in steps of 1 %, against every event: medians of three, processor time."""
    rows = []
    for n in (n for n in STEPPED if n <= up_to):
        common = {"ranks": n, "algorithm": "nccl-direct", "tokens": 1024}
        found = [(measured(tolerance=0.01, **common), measured(**common)) for _ in range(3)]
        steps, exact = (
            {**runs[0], "seconds": median(run["cpu_seconds"] for run in runs)} for runs in zip(*found, strict=True)
        )
        rows.append(as_row("ranks, network.tolerance 1 %, nccl-direct", n, steps, exact))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--up-to", type=int, default=16_384, help="ranks")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(json.loads(arguments.one))))
        return
    measured(layers=2)  # compiles
    rows = ranks(arguments.up_to) + stepped(arguments.up_to)
    for n in (64, 128, 256):
        if n <= arguments.up_to:
            found = measured(ranks=n, algorithm="nccl-direct")
            rows.append(as_row("flows, one per pair of ranks (nccl-direct, both phases)", 2 * n * (n - 1), found))
    for tokens in (1024, 4096, 16_384, 65_536):
        rows.append(as_row("tokens, 64 ranks", 64 * tokens, measured(tokens=tokens)))
    for layers in (1, 8, 58):
        rows.append(as_row("layers, 64 ranks", layers, measured(layers=layers)))
    write("scale", rows, machine())


if __name__ == "__main__":
    main()
