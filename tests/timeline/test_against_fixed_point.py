"""Random small clusters, loads and arrivals: the event-driven timeline against a fixed point of event-free passes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.alltoall_library import ALGORITHMS, algorithm_named
from moesim.measure.critical import critical_rank, rank_components
from moesim.measure.lower_bound import lower_bound
from moesim.network import solve_flows
from moesim.run.audit import _audit_phase, audit_components
from moesim.stages import KERNELS, OTHER, STAGES
from moesim.timeline import LayerWork, moe_layers, run_layers
from moesim.traffic import count_all_copies
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.constants import Protocol
from tests.reference.alltoall_constants import plain
from tests.reference.small_rail import small_rail
from tests.reference.timeline import walk

US = 1e-6


@st.composite
def terms(draw):
    """Some of the terms that constants may have beside rates and set-up times, each of some tens of microseconds."""
    every = {
        "fill_s": 20 * US,
        "fill_tokens": 5.0,
        "floor_s": 60 * US,
        "token_s": 4 * US,
        "node_copy_sm_s": 200 * US,
        "rank_copy_sm_s": 150 * US,
        "local_rate": 3e10,
        "receive_sm_rate": 2e9,
        "epilogue_token_s": 3 * US,
        "reduce_rate": 2e11,
        "setup_expert_s": 1 * US,
        "prepare_s": 9 * US,
        "prepare_token_s": 1 * US,
        "protocols": (
            Protocol("small", 5 * US, 8 * US, floor_s=12 * US, pair_rate=5e9),
            Protocol("large", 20 * US, 40 * US, nvlink_rate=1.5e11),
        ),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(every))))
    return {name: every[name] for name in chosen}


@st.composite
def runs(draw):
    """A few layers on a small cluster; transfers, kernels and arrivals all of some tens of microseconds."""
    nodes, gpus = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    ranks = draw(st.integers((nodes - 1) * gpus + 1, nodes * gpus))
    fabric = small_rail(nodes, gpus, ranks)
    fitting = [name for name in ALGORITHMS if nodes == 1 or not algorithm_named(name).one_domain]
    algorithm = draw(st.sampled_from(fitting))
    constants = plain(algorithm, "h800", sms=draw(st.sampled_from([0, 24, 66])), **draw(terms()))
    cached = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def kernel():
        return np.where(rng.random(ranks) < 0.7, rng.exponential(30 * US, ranks), 0.0)

    def work():
        tokens, slots = draw(st.integers(0, 12)), 2 * ranks
        slot_ids = rng.integers(0, slots, (tokens, 3))
        home = rng.integers(0, ranks, tokens)
        started = np.bincount(home, minlength=ranks)
        copies = count_all_copies(slot_ids, home, np.arange(slots) // 2, ranks, gpus)
        size = int(rng.integers(1, 1_000_000))
        flows = {
            phase: phase_flows(fabric, copies, constants, phase, size, cached, tokens=started, n_experts=slots)
            for phase in ("dispatch", "combine")
        }
        seconds = {stage.name: (3 if stage.beside else 1) * kernel() for stage in KERNELS}
        return LayerWork(seconds | {OTHER.name: np.full(ranks, other_s)}, flows)

    other_s = draw(st.sampled_from([0.0, 40 * US]))
    works = [work() for _ in range(draw(st.integers(1, 3)))]
    offsets = rng.exponential(draw(st.sampled_from([0, 5, 200])) * US, ranks)
    return fabric, works, offsets, algorithm.startswith("nccl")


def simulate(fabric, works, offsets, permutes_first):
    program = moe_layers(len(works), permutes_first, other=works[0].seconds[OTHER.name].any())
    *traces, _ = run_layers(fabric, program, lambda layer, _: works[layer], offsets, bucket_s=100 * US)
    return traces


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-15)


@given(runs())
@settings(max_examples=40, deadline=None)
def test_every_rank_and_flow_is_where_the_fixed_point_has_it(run):
    for trace, layer in zip(simulate(*run), walk(*run), strict=True):
        close(trace.entry_s, layer.entry)
        close(trace.end_s_of_layer, layer.leave)
        for name in (stage.name for stage in STAGES):
            close(trace.start_s[name], layer.start[name])
            close(trace.end_s[name], layer.end[name])
        for phase, want in ((trace.dispatch, layer.dispatch), (trace.combine, layer.combine)):
            close(phase.enter_s, want.enter)
            close(phase.launch_s, want.launch)
            close(phase.start_s, want.start)
            close(phase.finish_s, want.finish)
            close(phase.leave_s, want.leave)
            np.testing.assert_allclose(phase.wait_s, want.wait, rtol=1e-9, atol=1e-12)
            for rank in np.flatnonzero(want.wait > 1e-9):  # of shorter ones rounding chooses
                longest = max(end - begin for begin, end in want.gaps[rank])
                # who opened a flow, or the last one at the barrier; ranks that come together may stand for each other
                blamed = (want.ready[phase.waited_on[rank]], want.done[phase.waited_on[rank]])
                assert any(
                    any(end == pytest.approx(at) for at in blamed) and end - begin > longest - 1e-12
                    for begin, end in want.gaps[rank]
                )


@given(runs())
@settings(max_examples=25, deadline=None)
def test_the_parts_of_the_critical_rank_add_up_and_nothing_beats_the_lower_bound(run):
    fabric, works, *_ = run
    for trace, work in zip(simulate(*run), works, strict=True):
        took = float(trace.end_s_of_layer.max() - trace.entry_s.min())
        critical = critical_rank(trace, fabric)
        audit_components(critical.components, took, trace.layer)
        assert trace.end_s_of_layer[critical.rank] == trace.end_s_of_layer.max()
        parts = rank_components(trace)
        assert {name: seconds[critical.rank] for name, seconds in parts.items()} == critical.components
        np.testing.assert_allclose(
            sum(parts.values()), trace.end_s_of_layer - trace.entry_s.min(), rtol=1e-9, atol=1e-15
        )
        assert sum(critical.held_by.values()) == pytest.approx(took, rel=1e-9, abs=1e-15)
        assert lower_bound(trace, fabric, work.seconds["experts"]).seconds <= took * (1 + 1e-9)
        for phase in (trace.dispatch, trace.combine):
            _audit_phase("phase", fabric, phase)


@given(runs())
@settings(max_examples=15, deadline=None)
def test_solving_the_flows_of_a_run_again_gives_its_finish_times(run):
    fabric = run[0]
    phases = [phase for trace in simulate(*run) for phase in (trace.dispatch, trace.combine)]
    loads = [phase.flows.resources(fabric.n_links) for phase in phases]
    finish = solve_flows(
        np.concatenate([fabric.capacity, np.ones(fabric.n_ranks)]),
        np.zeros(fabric.n_links + fabric.n_ranks),
        np.concatenate([[0], np.cumsum(np.concatenate([np.diff(ptr) for ptr, _, _ in loads]))]),
        np.concatenate([links for _, links, _ in loads]),
        np.concatenate([phase.flows.size for phase in phases]),
        np.concatenate([phase.start_s for phase in phases]),
        weight=np.concatenate([weight for _, _, weight in loads]),
        rate_cap=np.concatenate(
            [np.full(f.n_flows, np.inf) if f.rate_cap is None else f.rate_cap for f in (p.flows for p in phases)]
        ),
    )
    close(finish, np.concatenate([phase.finish_s for phase in phases]))


@given(runs())
@settings(max_examples=10, deadline=None)
def test_a_run_repeats_itself_to_the_last_bit(run):
    for one, other in zip(simulate(*run), simulate(*run), strict=True):
        assert np.array_equal(one.end_s_of_layer, other.end_s_of_layer)
        for name in ("dispatch", "combine"):
            for field in ("finish_s", "leave_s", "wait_s", "waited_on", "bottleneck_time_s", "bottleneck_link"):
                assert np.array_equal(getattr(getattr(one, name), field), getattr(getattr(other, name), field))


@given(runs(), st.sampled_from([-3, 4]))
@settings(max_examples=15, deadline=None)
def test_all_times_scale_together(run, power):
    """Bytes, latencies and seconds times c: every time is c times what it was; exactly so for a power of two."""
    fabric, works, offsets, permutes_first = run
    factor = 2.0**power

    def scaled(flows):
        names = ("size", "entry_setup_s", "least_s")
        given = {name: getattr(flows, name) for name in names}
        changes = {name: value * factor for name, value in given.items() if value is not None}
        for name in ("delays", "group_setup", "exits"):
            changes[name] = {part: value * factor for part, value in getattr(flows, name).items()}
        return replace(flows, **changes)

    def slower(work):
        seconds = {name: value * factor for name, value in work.seconds.items()}
        return LayerWork(seconds, {name: scaled(flows) for name, flows in work.flows.items()})

    after = simulate(fabric, [slower(work) for work in works], offsets * factor, permutes_first)
    for one, other in zip(simulate(*run), after, strict=True):
        assert np.array_equal(one.end_s_of_layer * factor, other.end_s_of_layer)
