"""What sources publish about EP, batch, context and overlap beside each other comes out in the order that they have it.

Absolute figures of serving are off by what a source's engine, loads and host add; inside one source these are common.
Every step is timed by the closed form that a plan looks at its points with.
"""

from dataclasses import replace
from itertools import combinations

import pytest

from moesim.run.quick_answer import quick_answer
from moesim.validate.published_steps import read_steps
from moesim.validate.step_rows import scenario_of

# Published differences that are smaller say no more than the next run of the same benchmark.
TOLD_APART = 0.05
INFERENCE = ("prefill", "decode")
STEPS = {
    step.name: step for step in read_steps() if not step.refused and not step.reading and step.row["kind"] in INFERENCE
}
# LMSYS 2025-05-05, rows s037 to s040: two micro-batches against none, H100. Row, changes of both, gain of the first.
OVERLAP = [
    ("s031", {"workload.tokens_per_rank": 8192}, {"workload.tokens_per_rank": 8192}, 0.27),
    ("s031", {"workload.tokens_per_rank": 16384}, {"workload.tokens_per_rank": 8192}, 0.405),
    ("s033", {"workload.requests": 32}, {"workload.requests": 32}, -0.27),
]


def rate(step, folder):
    of = "node" if step.row["unit"].endswith("node") else "gpu"
    return quick_answer(scenario_of(step, folder)).summary[f"tokens_per_second_per_{of}"]


def pairs():
    """Rows of one source, model, GPU, phase and unit whose loads are of one kind, far enough apart."""
    for one, other in combinations(STEPS.values(), 2):
        alike = all(one.row[key] == other.row[key] for key in ("unit", "routing"))
        ratio = one.measured / other.measured
        if alike and one.engine == other.engine and max(ratio, 1 / ratio) > 1 + TOLD_APART:
            yield one, other


@pytest.mark.jit
@pytest.mark.timeout(600)
def test_relations_inside_one_source_come_out_in_the_right_order(tmp_path):
    paired = {step.name for pair in pairs() for step in pair}
    found = {name: rate(STEPS[name], tmp_path) for name in STEPS if name in paired}
    right = {
        (one.name, other.name): (one.measured > other.measured) == (found[one.name] > found[other.name])
        for one, other in pairs()
    }
    for name, ours, theirs, gain in OVERLAP:
        overlapped, in_turn = (
            rate(
                replace(STEPS[name], settings={**STEPS[name].settings, **changes, "schedule.overlap": overlap}),
                tmp_path,
            )
            for changes, overlap in ((ours, "two-batch"), (theirs, "none"))
        )
        right[name, str(ours)] = (overlapped > in_turn) == (gain > 0)
    print(f"{sum(right.values())} of {len(right)} pairs in the right order")
    assert len(right) >= 15
    assert sum(right.values()) >= 0.9 * len(right), [pair for pair, holds in right.items() if not holds]
