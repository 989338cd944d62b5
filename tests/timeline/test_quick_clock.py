"""Programs without events: order and kernels exactly as with events, shared links within what is stated of them."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moesim
from moesim.errors import InputError, InvariantError
from moesim.layer import build_parts, opened
from moesim.network import solve_flows
from moesim.run import route_steps, summed_up
from moesim.run.audit import _audit_phase
from moesim.run.quick_answer import quick_answer
from moesim.timeline import SCHEDULES, LayerWork, Operation, moe_layers, run_layers, run_layers_quickly
from moesim.timeline.quick_clock import _beside, in_closed_form
from moesim.traffic.flows import PhaseFlows
from tests.reference.small_rail import small_rail
from tests.timeline.test_against_fixed_point import runs
from tests.timeline.test_schedules import draws, seconds_of, timed


@pytest.mark.parametrize("which", SCHEDULES)
def test_a_schedule_of_fixed_times_runs_as_with_events(which):
    program, fabric = timed(*which, 5), small_rail(1, 2)
    for row in draws(20):
        a, s, d, m, c, h = (np.array([float(x), 2 * float(x)]) for x in row)
        given = dict(projections=a, attention=s, gate=h, shared_expert=s, dispatch=d, experts=m, combine=c, head=h)
        work = LayerWork({name: np.zeros(2) + given.get(name, 0.0) for name in seconds_of()}, {})
        *slow, _ = run_layers(fabric, program, lambda *_, work=work: work, np.array([0.0, 1.5]), 1e9)
        *quick, _ = run_layers_quickly(fabric, program, lambda *_, work=work: work, np.array([0.0, 1.5]))
        by_key = {(trace.layer, trace.micro_batch): trace for trace in quick}
        for trace in slow:
            other = by_key[trace.layer, trace.micro_batch]
            for name, end in trace.end_s.items():
                np.testing.assert_allclose(other.start_s[name], trace.start_s[name], rtol=1e-9, atol=1e-12)
                np.testing.assert_allclose(other.end_s[name], end, rtol=1e-9, atol=1e-12)
            for name, span in trace.beside.items():
                np.testing.assert_allclose(other.beside[name], span, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1, 1e3), st.floats(0, 100)), min_size=1, max_size=8))
def test_the_last_flow_of_a_link_ends_exactly_when_the_engine_has_it(flows):
    fabric = small_rail(1, 2)
    size, start = np.array(flows).T * [[1e6], [1e-6]]
    n, link = len(size), int(np.flatnonzero(fabric.link_target_rank == 1)[0])
    ptr, ends = np.arange(n + 1), np.ones(n, np.int32)
    phase = PhaseFlows(
        phase="dispatch", source=ends * 0, target=ends, size=size, route_ptr=ptr, route_links=ends * link,
        share=np.ones(n), efficiency=np.full(n, 0.5), delays={"set-up": start}, gate_ptr=ptr, gate_ranks=ends * 0,
        member_ptr=ptr, member_ranks=ends, all_ranks_gate=False, entry_setup_s=0.0, group_setup={}, sms=0,
        total_sms=132,
    )  # fmt: skip
    capacity = np.concatenate([fabric.capacity, np.ones(4)])
    quick = in_closed_form(phase, capacity, np.zeros(2))
    exact = solve_flows(fabric.capacity, fabric.latency * 0, ptr, phase.route_links, size, start, phase.weight)
    assert quick.leave_s[1] == pytest.approx(exact.max(), rel=1e-9)


@given(runs())
@settings(max_examples=60, deadline=None)
def test_small_runs_keep_the_laws_and_come_near_the_engine(run):
    fabric, works, offsets, permutes_first = run
    program = moe_layers(len(works), permutes_first, other=works[0].seconds["other"].any())
    *slow, _ = run_layers(fabric, program, lambda layer, _: works[layer], offsets, 1e-4)
    *quick, _ = run_layers_quickly(fabric, program, lambda layer, _: works[layer], offsets)
    for trace in quick:
        for name, phase in trace.phases.items():
            _audit_phase(name, fabric, phase)
    ends = [max(float(trace.end_s_of_layer.max()) for trace in traces) for traces in (quick, slow)]
    # Hostile terms and a handful of tokens: nothing like a layer of a model, where 2 % are kept.
    assert 0.8 < ends[0] / ends[1] < 1.25


@pytest.mark.parametrize("sms", [66, 132])
def test_a_kernel_beside_a_communication_kernel_has_the_sms_that_this_leaves(sms):
    held = deque([(np.array([2.0, 2.0, 9.0]), np.array([6.0, 6.0, 12.0]), 1 - sms / 132)])
    end = _beside(np.array([0.0, 3.0, 0.0]), np.array([3.0, 5.0, 1.0]), held)
    # 2 s alone, then half of the GPU or none of it until the other ends; the last is over before that begins.
    assert end.tolist() == ([4.0, 9.5, 1.0] if sms == 66 else [7.0, 11.0, 1.0])


def test_an_operation_that_waits_for_what_never_comes_is_told():
    program = [Operation(one.stage, one.layer, one.micro_batch, one.after) for one in moe_layers(1, True)]
    program[0] = program[0]._replace(after=(program[-1].key,))
    fabric = small_rail(1, 2)
    with pytest.raises(InvariantError, match="gate"):
        list(run_layers_quickly(fabric, tuple(program), lambda *_: LayerWork({}, {}), np.zeros(2)))


SHIPPED = ("document-v1", "document-v3", "deepseek-v3-decode-ep128", "deepseek-v3-prefill-step", "out-of-domain")
DRAWN = {
    "decode on shared NICs": ["cluster.topology=h200-2x8-rail-4nics", "workload.requests=32"],
    "skew on an oversubscribed fabric": [
        "cluster.topology=h100-2x8-leaf-spine-2to1",
        "workload.requests=64",
        "workload.synthetic={kind: one_hot_rank, ratio: 2.0}",
        "schedule.overlap=hooks",
    ],
}


def both(scenario):
    """Step and layer times of the first step, without events and with them."""
    parts, workload = opened(build_parts(scenario))
    steps, found = list(route_steps(parts, [workload.batch(0)])), []
    for quick in (True, False):
        builder, ledger = summed_up(parts, steps, quick)
        found.append(builder.build(ledger.shares(), False))
    return found


@pytest.mark.jit
@pytest.mark.parametrize("name", [*SHIPPED, *DRAWN])
def test_the_quick_answer_is_within_two_per_cent_of_the_engine(name):
    loaded = moesim.load_scenario(name if name in SHIPPED else "deepseek-v3-decode-step", DRAWN.get(name, ()))
    for scenario in (loaded.variant_scenarios() or {"": loaded}).values():
        quick, exact = both(scenario)
        for key in ("layer_time_s", "step_time_s"):
            assert quick[key] == pytest.approx(exact[key], rel=0.02), key


def test_the_quick_answer_says_what_it_is_and_has_every_number():
    scenario = moesim.load_scenario("quickstart", ["workload.tokens_per_rank=64"])
    quick, exact = quick_answer(scenario), moesim.simulate(scenario)
    assert quick.notes[-1].kind == "quick" and "no event engine" in quick.notes[-1].text
    # What its numbers rest on is said as after a run.
    assert quick.notes[:-1] == exact.notes
    assert quick.summary.keys() == exact.summary.keys() and quick.intervals.keys() == exact.intervals.keys()
    assert quick.summary["layer_time_s"] == pytest.approx(exact.summary["layer_time_s"], rel=0.02)
    same = ("rank_load_max_over_mean", "nvlink_wire_bytes", "gate_mass_lost", "expert_loss")
    assert {key: quick.summary[key] for key in same} == {key: exact.summary[key] for key in same}


@pytest.mark.jit
def test_a_slow_gpu_is_slow_in_the_quick_answer_too_and_a_passing_fault_needs_the_engine():
    lasting = "faults=[{kind: slow_gpu, where: n0.gpu1, factor: 2}]"
    scenario = moesim.load_scenario("quickstart", ["workload.tokens_per_rank=64", lasting])
    healthy = quick_answer(moesim.load_scenario("quickstart", ["workload.tokens_per_rank=64"])).summary["layer_time_s"]
    quick, exact = both(scenario)
    assert quick["layer_time_s"] == pytest.approx(exact["layer_time_s"], rel=0.02)
    assert quick["layer_time_s"] > 1.05 * healthy
    passing = "faults=[{kind: slow_gpu, where: n0.gpu1, factor: 2, to: 1ms}]"
    with pytest.raises(InputError, match="comes and goes"):
        quick_answer(moesim.load_scenario("quickstart", ["workload.tokens_per_rank=64", passing]))
