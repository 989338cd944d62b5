"""Programs that no scenario builds yet, on the executor: two micro-batches beside each other, against closed forms.

Stages of fixed time on both lanes, so that a period per layer follows from the order and the waits alone.
"""

from dataclasses import replace

import numpy as np
import pytest

from moesim.errors import InvariantError
from moesim.stages import KERNELS, OTHER, STAGES, Stage
from moesim.timeline import LayerWork, Operation, moe_layers, run_layers
from tests.reference.small_rail import small_rail

ONE_BUCKET_S = 1e9


def stage(name, lane="compute"):
    return Stage(name, lane, component=name)


def run(program, seconds, ranks=1, offsets=0.0):
    """Traces of a program by (layer, micro-batch); ``seconds`` by stage, alike on all ranks."""
    fabric = small_rail(1, ranks)
    work = LayerWork({name: np.full(ranks, float(value)) for name, value in seconds.items()}, {})
    starts = np.broadcast_to(np.array(offsets, float), ranks)
    *traces, _ = run_layers(fabric, program, lambda *_: work, starts, ONE_BUCKET_S)
    return {(trace.layer, trace.micro_batch): trace for trace in traces}


def period(traces, name, over):
    """Seconds per layer once the pipeline is full: between the last starts of a stage, a whole number of repeats."""
    last = max(layer for layer, _ in traces)
    begin, end = (float(traces[layer, 0].start_s[name][0]) for layer in (last - over, last))
    return (end - begin) / over


A, S, M = stage("attention"), stage("shared"), stage("experts")
D, C = stage("dispatch", "network"), stage("combine", "network")


def prefill(layers):
    """Two micro-batches, communication of one beside compute of the other."""
    for layer in range(layers):
        last = [((C.name, layer - 1, z), (S.name, layer - 1, z)) if layer else () for z in (0, 1)]
        yield Operation(A, layer, 0, last[0])
        if layer:
            yield Operation(S, layer - 1, 1, ((A.name, layer - 1, 1),))
            yield Operation(C, layer - 1, 1, ((M.name, layer - 1, 1),))
        yield Operation(D, layer, 0, ((A.name, layer, 0),))
        yield Operation(A, layer, 1, last[1])
        yield Operation(D, layer, 1, ((A.name, layer, 1),))
        yield Operation(M, layer, 0, ((D.name, layer, 0),))
        yield Operation(C, layer, 0, ((M.name, layer, 0),))
        yield Operation(M, layer, 1, ((D.name, layer, 1),))
        yield Operation(S, layer, 0, ((A.name, layer, 0),))
    yield Operation(S, layers - 1, 1, ((A.name, layers - 1, 1),))
    yield Operation(C, layers - 1, 1, ((M.name, layers - 1, 1),))


def prefill_period(a, s, d, m, c):
    """The longest cycle of waits, in seconds per layer and both micro-batches."""
    first = max(2 * (a + s + m), a + d + 2 * m + s, a + 2 * d + m + s, 2 * a + 2 * s + d + m)
    second = max(a + 2 * d + c, a + d + m + c, 2 * a + s + m + c, 2 * a + s + d + c)
    third = max(2 * (d + c), d + m + 2 * c, a + m + 2 * c, a + d + 2 * c)
    fourth = max(a + c + d + m, a + c + 2 * m, c + d + 2 * m, c + 2 * d + m)
    p = max(2 * a + s + 2 * m, a + d + 2 * m, a + 2 * d + m, 2 * a + s + d + m)
    halves = max(p + max(third, fourth + s), second + fourth + s) / 2
    return max(first, second, third, fourth, halves)


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(3)
    # Small whole numbers among them: many draws in which several cycles are equally long.
    return np.concatenate([rng.integers(0, 9, (40, 5)), rng.exponential(10.0, (40, 5))]).astype(float)


def test_two_micro_batches_of_a_prefill_take_the_period_of_the_longest_cycle_of_waits(drawn):
    program, halves = tuple(prefill(24)), 0
    for times in drawn:
        seconds = dict(zip(("attention", "shared", "dispatch", "experts", "combine"), times, strict=True))
        want = prefill_period(*times)
        got = period(run(program, seconds), "attention", over=8)
        assert got == pytest.approx(want, rel=1e-9, abs=1e-12), seconds
        halves += want > max(2 * (times[0] + times[1] + times[3]), 2 * (times[2] + times[4])) + 1e-9
    assert halves > 20  # in many draws neither compute nor communication alone says it


DECODE = {
    "compute": ("post_dispatch", "shared", "projections", "take_dispatch", "experts", "post_combine", "core",
                "take_combine"),
    "network": ("dispatch", "combine"),
}  # fmt: skip


def decode(layers):
    """Send posts the messages and returns, the transfer needs no SM, receive waits for it; x and y take turns."""
    s = {name: stage(name, lane) for lane, names in DECODE.items() for name in names}
    for half in range(2 * layers):
        x, layer = half % 2, half // 2
        # The other micro-batch stands half a layer behind: y enters the layer that x is in, x then the next.
        y, ahead = 1 - x, layer + x
        taken = ((("take_combine", ahead - 1, y),) if ahead else ()) if half + 1 < 2 * layers else None
        core = (("core", layer, x),) if half else ()
        yield Operation(s["post_dispatch"], layer, x, core)
        yield Operation(s["dispatch"], layer, x, (("post_dispatch", layer, x),))
        yield Operation(s["shared"], layer, x)
        if taken is not None:
            yield Operation(s["projections"], ahead, y, taken)
        yield Operation(s["take_dispatch"], layer, x, (("dispatch", layer, x),))
        yield Operation(s["experts"], layer, x)
        yield Operation(s["post_combine"], layer, x)
        yield Operation(s["combine"], layer, x, (("post_combine", layer, x),))
        if taken is not None:
            yield Operation(s["core"], ahead, y, (("projections", ahead, y),))
        yield Operation(s["take_combine"], layer, x, (("combine", layer, x),))


def test_the_half_period_of_a_decode_whose_sends_hold_no_sms(drawn):
    program = tuple(decode(10))
    for number, (d, s, a0, m, c) in enumerate(drawn):
        a1, h = drawn[-1 - number][:2]
        seconds = {"dispatch": d, "shared": s, "projections": a0, "experts": m, "combine": c, "core": a1}
        seconds |= dict.fromkeys(("post_dispatch", "take_dispatch", "post_combine", "take_combine"), h)
        want = max(d, s + a0) + m + max(c, a1) + 4 * h
        got = period(run(program, seconds), "experts", over=6) / 2
        assert got == pytest.approx(want, rel=1e-9, abs=1e-12), seconds


def test_without_overlap_a_layer_is_the_sum_of_its_parts_and_the_longer_of_shared_expert_and_dispatch(drawn):
    fixed = {stage.name: stage._replace(kind="kernel") for stage in STAGES}
    for permutes_first in (True, False):
        program = tuple(
            operation._replace(stage=fixed.get(operation.stage.name, operation.stage))
            for operation in moe_layers(4, permutes_first, other=True)
        )
        for a, s, d, m, c in drawn[::10]:
            seconds = dict.fromkeys((stage.name for stage in KERNELS), 0.0)
            seconds |= {OTHER.name: a, "shared_expert": s, "dispatch": d, "experts": m, "combine": c}
            traces = run(program, seconds)
            assert period(traces, "gate", over=2) == pytest.approx(a + max(d, s) + m + c, abs=1e-12)


def test_every_rank_runs_its_program_from_its_own_start():
    seconds = {"attention": 3, "shared": 1, "dispatch": 4, "experts": 2, "combine": 5}
    traces = run(tuple(prefill(5)), seconds, 3, [0, 7, 2])
    for trace in traces.values():
        np.testing.assert_allclose(trace.entry_s - trace.entry_s[0], [0, 7, 2])
        assert trace.phases == {} and trace.length_s > 7
    assert len(traces) == 2 * 5


def test_a_kernel_counts_where_no_phase_of_its_layer_runs():
    """Phases cover seconds 2 to 4 and 9 to 12; stages that span both, touch one, lie within, outlast it, follow it."""
    traces = run((Operation(A, 0),), {"attention": 1})
    spans = {
        "one": (2, 4),
        "two": (9, 12),
        "wide": (0, 10),
        "early": (1, 2),
        "within": (3, 4),
        "over": (3, 6),
        "late": (5, 8),
    }
    trace = replace(
        traces[0, 0],
        start_s={name: np.array([float(begin)]) for name, (begin, _) in spans.items()},
        end_s={name: np.array([float(end)]) for name, (_, end) in spans.items()},
        phases=dict.fromkeys(("one", "two")),
    )
    exposed = {name: float(trace.exposed_s(name)[0]) for name in ("wide", "early", "within", "over", "late")}
    assert exposed == {"wide": 7, "early": 1, "within": 0, "over": 2, "late": 3}


def test_a_program_that_waits_for_what_it_does_not_hold_is_refused():
    with pytest.raises(InvariantError, match=r"\('experts', 0, 0\) waits for \('dispatch', 0, 0\)"):
        run((Operation(M, 0, after=((D.name, 0, 0),)),), {"experts": 1})


def test_operations_that_wait_for_each_other_are_seen():
    circle = Operation(M, 0, after=((D.name, 0, 0),)), Operation(D, 0, after=((M.name, 0, 0),))
    with pytest.raises(InvariantError, match=r"rank 0 never gets \('experts', 0, 0\) done"):
        run(circle, {"experts": 1, "dispatch": 1})
