"""Whether a plan's search finds what simulating every point finds: ``python -m benchmarks.plan_search [SPACES]``.

Draws scenarios and of the deployments of each 200 points, simulates them all, and lets the search ask for those that it
wants to see. Prints for each whether best point and front are the same, and the share of points left out;
``docs/plan.md`` quotes 20 spaces of seed 0.
"""

import argparse
import random
import sys
from contextlib import nullcontext
from typing import Any

import moesim
from benchmarks.quick_answer import LOADS
from moesim.scenario import parse_threshold
from moesim.sweeps.answers import pareto
from moesim.sweeps.deployments import LATENCY, RATE, deployments, kind_of
from moesim.sweeps.journal import Outcome
from moesim.sweeps.pruned_search import Search, search
from moesim.sweeps.space import Space
from moesim.sweeps.workers import Workers, local_workers

CLUSTERS = ("hgx-h200", "h200-2x4-rail", "h100-2x4-leaf-spine-2to1", "h200-2x4-rail-2nics", "h800-4x2-rail")
MODELS = ("qwen3-30b-a3b", "qwen3-235b-a22b", "deepseek-v2", "deepseek-v2-lite", "olmoe-1b-7b")


def draw(rng: random.Random) -> dict[str, Any]:
    """Draw a scenario of whole steps."""
    decode = rng.random() < 0.7
    tokens = {"requests": rng.choice((32, 64, 128)), "context": rng.choice((1024, 4096))}
    if not decode:
        tokens = {"tokens_per_rank": rng.choice((2048, 4096)), "sequence_length": 512}
    return {
        "name": "drawn",
        "seed": rng.randrange(1000),
        "cluster": {"topology": rng.choice(CLUSTERS)},
        "model": {"preset": rng.choice(MODELS)},
        "workload": {"synthetic": rng.choice(LOADS), "layers_simulated": 2, **tokens},
        "placement": {"learn_from": "first_half"},
        "alltoall": {"algorithm": "deepep-low-latency" if decode else "deepep-normal"},
        "schedule": {"phase": "decode" if decode else "prefill"},
    }


def front(found: Search) -> set[int]:
    """Points within the limits that no other beats in rate and latency."""
    kept = sorted(found.within())
    costs = [(-found.simulated[p][RATE], found.simulated[p][found.latency]) for p in kept]
    return {kept[i] for i in pareto(costs)}


def replayed(whole: Search) -> Search:
    """Search among points whose simulation is known, handing out what is asked for."""
    found = Search(whole.limits, whole.latency, whole.kind, dict(whole.estimated))
    while points := found.next():
        for point in points:
            before = whole.estimated[point]["step_time_s"]
            found.add(point, Outcome("ok", None, {**whole.simulated[point], "estimated_step_time_s": before}))
    return found


def main() -> None:
    """Draw, simulate, search, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("spaces", nargs="?", type=int, default=20)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    with local_workers(given.jobs) as crew:
        sys.exit(spaces(given, crew))


def spaces(given: argparse.Namespace, crew: Workers) -> int:
    """Go through the spaces; 1 where one is not the same."""
    rng, same, asked, all_points = random.Random(given.seed), 0, 0, 0  # noqa: S311 - no secrets
    for number in range(given.spaces):
        drawn = draw(rng)
        scenario = moesim.load_scenario(drawn)
        axes = deployments(scenario, None, {}).axes
        space = Space(axes, min(given.points, Space(axes).combinations), rng.randrange(1000))
        phase = scenario.schedule.phase
        whole, _ = search(scenario, space, (), lambda _: nullcontext(crew), every=True)
        # A limit that half of the points keep.
        middle = sorted(one[LATENCY[phase]] for one in whole.simulated.values())[len(whole.simulated) // 2]
        whole.limits = (parse_threshold(f"{LATENCY[phase]} < {middle * 1e6:.3f}us"),)
        whole.kind = lambda point, space=space, phase=phase: kind_of(space.values(point), phase)
        found = replayed(whole)
        agree = found.best() == whole.best() and front(found) == front(whole) and found.second() == whole.second()
        same, asked, all_points = same + agree, asked + len(found.simulated), all_points + len(whole.simulated)
        left_out = 1 - len(found.simulated) / len(whole.simulated)
        print(f"{number}: {drawn['model']['preset']} on {drawn['cluster']['topology']}, {phase}, "
              f"{drawn['workload']['synthetic']}: {'same' if agree else 'NOT THE SAME'}, front {len(front(whole))}, "
              f"{left_out:.0%} of {len(whole.simulated)} left out, margin {found.margin:.1%} (worst {whole.worst:.1%})",
              flush=True)  # fmt: skip
    print(f"{same} of {given.spaces} spaces the same; {1 - asked / all_points:.0%} of the points left out")
    return 0 if same == given.spaces else 1


if __name__ == "__main__":
    main()
