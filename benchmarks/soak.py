"""A soak: random scenarios one after the other in one process, whose memory, files and threads must stay as they are.

    nice -n 19 python -m benchmarks.soak --minutes 60

Every scenario is drawn from a seed, so that one that fails is run again by its number (``--only N``). Right is: no
internal error, resident memory of the last quarter at most 1 % above that of the second, open files and threads as at
the start. A refusal (InputError) is an answer too; its share is printed.
"""

import argparse
import ctypes
import gc
import json
import os
import sys
import threading
import time
from statistics import median

import numpy as np

MOST_DRIFT = 0.01
CLUSTERS = {"hgx-h800": 8, "h800-8x8-rail": 64, "h100-8x8-leaf-spine": 64, "gb200-nvl72": 72, "h800-4x8-rail": 32}
ALGORITHMS = (
    "nccl-direct", "nccl-pxn", "deepep-normal", "deepep-v2-hybrid", "deepep-v2-direct", "deepep-low-latency",
    "nvl-one-sided", "allgather-reduce-scatter",
)  # fmt: skip
SYNTHETIC = (
    {"kind": "uniform"}, {"kind": "zipf", "exponent": 0.8}, {"kind": "lognormal", "sigma": 1.0, "correlation": 0.4},
    {"kind": "one_hot_rank", "ratio": 3.0}, {"kind": "megatron-force-load-balancing"}, {"kind": "w1-hot-experts"},
    {"kind": "sglang-round-robin"},
)  # fmt: skip


def scenario(number, seed=0):
    """Return the scenario of a number as plain data: a draw over clusters, models, routers, placements, algorithms."""
    rng = np.random.default_rng([seed, number])

    def one(values):
        return values[int(rng.integers(len(values)))]

    cluster = one(list(CLUSTERS))
    ep = int(one([n for n in (2, 4, 8, 16, 32, 64) if n <= CLUSTERS[cluster]]))
    experts = int(one((32, 64, 128, 256)))
    kind, groups = one(("v1", "v2", "v3")), int(one((1, 4, 8)))
    policy = one(("contiguous", "round_robin", "eplb", "greedy"))
    tokens, synthetic = int(rng.integers(1, 1500)), dict(one(SYNTHETIC))
    dealt = synthetic["kind"] in ("w1-hot-experts", "sglang-round-robin")
    return {
        "name": f"soak-{number}",
        "seed": int(rng.integers(1000)),
        "cluster": {"topology": cluster},
        "parallel": {"ep": ep},
        "model": {"preset": "deepseek-v3", "n_experts": experts},
        "routing": {
            "kind": kind, "top_k": int(rng.integers(1, 9)), "groups": 1 if kind == "v1" else groups,
            "top_groups": 1 if kind == "v1" else int(rng.integers(1, groups + 1)),
        },
        "placement": {"policy": policy, "redundant_experts": ep if policy == "eplb" and rng.random() < 0.5 else 0},
        "workload": {
            "synthetic": synthetic, "assign": one(("by_sequence",) if dealt else ("by_sequence", "striped")),
            "steps": int(rng.integers(1, 4)),
            "tokens_per_rank": tokens if rng.random() < 0.7 else (rng.integers(0, 1500, ep) + 1).tolist(),
            "layers_simulated": int(rng.integers(1, 4)),
        },
        "alltoall": {"algorithm": one(ALGORITHMS)},
    }  # fmt: skip


def resident():
    """Bytes of memory that this process holds, once the allocator has given back what is free."""
    # glibc keeps freed blocks between those in use: how many follows from the sizes drawn last, and is no leak.
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(minutes, seed):
    """Run scenarios for so many minutes; return what happened."""
    import moesim
    from moesim.errors import InputError

    end = time.monotonic() + 60 * minutes
    done, refused, failed, memory, open_files, threads = 0, 0, [], [], [], []
    while time.monotonic() < end:
        try:
            moesim.simulate(moesim.load_scenario(scenario(done + refused + len(failed), seed)))
            done += 1
        except InputError:
            refused += 1
        except Exception as error:
            failed.append({"number": done + refused + len(failed), "error": f"{type(error).__name__}: {error}"})
        gc.collect()  # cycles are freed in their own time
        memory.append(resident())
        open_files.append(len(os.listdir("/proc/self/fd")))
        threads.append(threading.active_count())
    quarter = max(1, len(memory) // 4)
    early, late = median(memory[quarter : 2 * quarter] or memory), median(memory[-quarter:])
    return {
        "minutes": minutes, "seed": seed, "simulated": done, "refused": refused, "failed": failed,
        "resident_bytes": [int(early), int(late)], "drift": late / early - 1,
        "open_files": [open_files[0], open_files[-1]], "threads": [threads[0], threads[-1]],
    }  # fmt: skip


def main():
    """Read the command line, soak, print the result; exit code 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one scenario: print it and run it alone")
    options = parser.parse_args()
    if options.only is not None:
        import moesim

        print(json.dumps(scenario(options.only, options.seed)))
        moesim.simulate(moesim.load_scenario(scenario(options.only, options.seed)))
        return
    found = soak(options.minutes, options.seed)
    print(json.dumps(found, indent=1))
    same = found["open_files"][0] == found["open_files"][1] and found["threads"][0] == found["threads"][1]
    if found["failed"] or found["drift"] > MOST_DRIFT or not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
