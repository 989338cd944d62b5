"""How far the quick answer is from the flow engine: ``python benchmarks/quick_answer.py [DRAWS] [--seed N]``.

Draws scenarios over clusters, all-to-alls, phases, overlaps, loads, skews and placements, times each in both ways and
prints the error of the layer's or the step's time. ``docs/plan.md`` quotes 200 draws of seed 0.
"""

import argparse
import random
import time
from typing import Any

import numpy as np

import moesim
from moesim.errors import InputError
from moesim.layer import build_parts, opened
from moesim.run import route_steps, summed_up

CLUSTERS = (
    "hgx-h200", "h200-2x8-rail", "h200-4x8-rail", "h800-4x8-rail", "h100-4x8-leaf-spine-2to1",
    "h100-4x8-leaf-spine-4to1", "h200-4x8-rail-4nics", "h800-8x8-rail", "h800-4x8-multi-plane",
)  # fmt: skip
ALGORITHMS = {
    "prefill": ("deepep-normal", "deepep-v2-hybrid", "deepep-v2-direct", "hybrid-ep", "nccl-direct", "nccl-pxn"),
    "decode": ("deepep-low-latency", "deepep-low-latency", "deepep-low-latency-nic", "nccl-direct", "deepep-normal"),
}
OVERLAPS = {"prefill": ("none", "two-batch"), "decode": ("none", "two-batch", "single-batch", "hooks")}
LOADS = (
    {"kind": "uniform"}, {"kind": "zipf", "exponent": 0.5}, {"kind": "lognormal", "sigma": 0.4},
    {"kind": "lognormal", "sigma": 0.8}, {"kind": "one_hot_rank", "ratio": 2.0}, {"kind": "one_hot_node", "ratio": 1.5},
    {"kind": "w0-balanced"}, {"kind": "w4-ragged-sources"},
)  # fmt: skip
OFFSETS = ("0us", {"distribution": "lognormal", "sigma": 0.5, "scale": "20us"})


def draw(rng: random.Random) -> dict[str, Any]:
    """Draw a scenario; not every one is possible."""
    phase, whole = rng.choice(("prefill", "decode")), rng.random() < 0.7
    workload: dict[str, Any] = {"synthetic": rng.choice(LOADS)}
    if phase == "decode":
        tokens = rng.choice((16, 32, 64, 128))
        workload |= {"requests": tokens, "context": rng.choice((1024, 4096))} if whole else {"tokens_per_rank": tokens}
    else:
        workload |= {"tokens_per_rank": rng.choice((512, 1024, 2048, 4096))}
        workload |= {"sequence_length": 512} if whole else {}
    policy = rng.choice(("contiguous", "contiguous", "eplb", "round_robin"))
    return {
        "name": "drawn",
        "seed": rng.randrange(1000),
        "cluster": {"topology": rng.choice(CLUSTERS)},
        "parallel": {"ep": rng.choice((8, 16, 32, None))},
        "model": {"preset": rng.choice(("deepseek-v3", "deepseek-v3", "deepseek-v2", "qwen3-235b-a22b"))},
        "workload": workload,
        "placement": {"policy": policy, "redundant_experts": rng.choice((0, 32)) if policy == "eplb" else 0},
        "alltoall": {"algorithm": rng.choice(ALGORITHMS[phase])},
        "schedule": {
            "phase": phase,
            "overlap": rng.choice(OVERLAPS[phase]) if whole else "none",
            "start_offset": rng.choice(OFFSETS),
        },
    }


def both(scenario: moesim.scenario.Scenario) -> tuple[dict[str, Any], dict[str, Any], float, float]:
    """Return the summaries, quick and exact, and the CPU seconds of their clocks."""
    parts, workload = opened(build_parts(scenario))
    steps = list(route_steps(parts, [workload.batch(0)]))

    def timed(quick: bool) -> tuple[dict[str, Any], float]:
        began = time.process_time()
        builder, ledger = summed_up(parts, steps, quick)
        return builder.build(ledger.shares(), False), time.process_time() - began

    (exact, slow), (quick, fast) = timed(False), timed(True)
    return quick, exact, fast, slow


def main() -> None:
    """Draw, time, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("draws", nargs="?", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", action="store_true", help="Print every draw.")
    given = parser.parse_args()
    rng, found = random.Random(given.seed), []  # noqa: S311 - no secrets
    while len(found) < given.draws:
        drawn = draw(rng)
        try:
            scenario = moesim.load_scenario(drawn)
            quick, exact, fast, slow = both(scenario)
        except InputError:
            continue
        key = "tokens_per_second" if "tokens_per_second" in exact else "layer_time_s"
        off = exact[key] / quick[key] - 1 if key != "layer_time_s" else quick[key] / exact[key] - 1
        same = quick["bottleneck"].split(":")[0] == exact["bottleneck"].split(":")[0]
        found.append((off, fast, slow, same, drawn))
        if given.each:
            about = (drawn["cluster"]["topology"], drawn["parallel"]["ep"], drawn["alltoall"]["algorithm"])
            print(
                f"{off:+.3%}",
                *about,
                drawn["schedule"]["overlap"],
                drawn["workload"],
                f"{fast:.2f} {slow:.2f}",
                flush=True,
            )
    off, fast, slow, same = (np.array([row[i] for row in found]) for i in range(4))
    size = np.abs(off)
    print(f"{len(found)} drawn: time off by median {np.median(size):.2%}, 90th percentile {np.quantile(size, 0.9):.2%}")
    print(f"from {off.min():+.2%} to {off.max():+.2%}; within 2 %: {np.mean(size <= 0.02):.1%}")
    print(f"same bottleneck named: {same.mean():.1%}; CPU {fast.sum():.0f} s against {slow.sum():.0f} s")


if __name__ == "__main__":
    main()
