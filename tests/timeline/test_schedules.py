"""The schedules of a step on the executor, against closed forms; phases of fixed time, so that a period follows alone.

The forms are those of dependency rules written down apart from the programs: the longest cycle of waits.
"""

from fractions import Fraction

import numpy as np
import pytest

from moesim.stages import STAGES, STEP
from moesim.timeline import SCHEDULES
from tests.timeline.test_program import period, prefill_period, run

NAMES = [stage.name for stage in (*STAGES, *STEP)]
HOOKS = ("send_dispatch", "receive_dispatch", "send_combine", "receive_combine")


def timed(phase, overlap, layers, permutes_first=False):
    """The schedule with all-to-alls of fixed time."""
    return tuple(
        operation._replace(stage=operation.stage._replace(kind="kernel"))
        for operation in SCHEDULES[phase, overlap](layers, permutes_first)
    )


def seconds_of(**given):
    return dict.fromkeys(NAMES, 0.0) | given


def draws(n, columns=6):
    """Rational times: small whole numbers, of which many cycles are equally long, and ones with all denominators."""
    rng = np.random.default_rng(17)
    whole = rng.integers(0, 9, (n // 2, columns))
    parts = rng.integers(0, 1000, (n - n // 2, columns)), rng.integers(1, 64, (n - n // 2, columns))
    return [[Fraction(int(x)) for x in row] for row in whole] + [
        [Fraction(int(a), int(b)) for a, b in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)
    ]


N_DRAWS = [60, pytest.param(2_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]


@pytest.mark.parametrize("n", N_DRAWS)
def test_the_period_of_a_prefill_of_two_micro_batches_is_the_longest_cycle_of_waits(n):
    program = timed("prefill", "two-batch", 24)
    for attention, shared, dispatch, experts, combine, gate in draws(n):
        seconds = seconds_of(
            projections=float(attention) / 2, attention=float(attention) / 2, gate=float(gate), combine=float(combine),
            shared_expert=float(shared), dispatch=float(dispatch), permute=float(experts) / 4,
            experts=float(experts) / 2, unpermute=float(experts) / 4,
        )  # fmt: skip
        want = float(prefill_period(attention + gate, shared, dispatch, experts, combine))
        got = period(run(program, seconds), "gate", over=8)
        assert got == pytest.approx(want, rel=1e-9, abs=1e-12), seconds


@pytest.mark.parametrize("n", N_DRAWS)
def test_the_half_period_of_a_decode_of_two_micro_batches(n):
    program = timed("decode", "two-batch", 10)
    for number, (first, shared, dispatch, experts, combine, second) in enumerate(draws(n)):
        hook = Fraction(number % 4, 7)
        seconds = seconds_of(
            projections=float(first), attention=float(second) / 2, gate=float(second) / 2, combine=float(combine),
            shared_expert=float(shared), dispatch=float(dispatch), experts=float(experts),
            **dict.fromkeys(HOOKS, float(hook)),
        )  # fmt: skip
        want = float(max(dispatch, shared + first) + experts + max(combine, second) + 4 * hook)
        got = period(run(program, seconds), "experts", over=6) / 2
        assert got == pytest.approx(want, rel=1e-9, abs=1e-12), seconds


@pytest.mark.parametrize("permutes_first", [False, True])
def test_one_micro_batch_takes_the_sum_of_its_parts_less_what_runs_beside_a_phase(permutes_first):
    programs = {name: timed("decode", name, 4, permutes_first) for name in ("none", "hooks", "single-batch")}
    for a, s, d, m, c, h in ([float(x) for x in row] for row in draws(60)):
        given = dict.fromkeys(HOOKS, h) | {
            "projections": a, "shared_expert": s, "dispatch": d, "experts": m, "combine": c, "experts_down": 2 * m,
            "permute": 0.25, "unpermute": 0.5,
        }  # fmt: skip
        want = {
            "none": a + max(d, s) + m + c,
            "hooks": a + max(d, s) + m + c + 4 * h,
            "single-batch": a + max(d, s) + m + max(c, 2 * m) + 4 * h,
        }
        for name, program in programs.items():
            traces = run(program, seconds_of(**given))
            assert period(traces, "gate", over=2) == pytest.approx(want[name] + 0.75, abs=1e-9), name


@pytest.mark.parametrize("which", [which for which in SCHEDULES if which[0] != "training"])
@pytest.mark.parametrize("permutes_first", [False, True])
def test_a_step_runs_every_layer_once_for_each_micro_batch_and_ends_with_the_head(which, permutes_first):
    seconds = seconds_of(**dict.fromkeys(NAMES, 1.0))
    program = timed(*which, 3, permutes_first)
    assert len({operation.key for operation in program}) == len(program)
    traces = run(program, seconds)
    cuts = 2 if which[1] == "two-batch" else 1
    assert set(traces) == {(layer, z) for layer in range(3) for z in range(cuts)}
    ends = [float(end[0]) for trace in traces.values() for end in trace.end_s.values()]
    head = traces[2, cuts - 1].beside["head"]
    assert float(head[0][0]) >= max(ends)
    dense = [float(trace.beside["dense_layers"][1][0]) for trace in traces.values() if "dense_layers" in trace.beside]
    assert len(dense) == cuts and max(dense) <= min(float(t.beside["attention"][0][0]) for t in traces.values())
