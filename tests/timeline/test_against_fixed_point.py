"""Random small clusters, loads and arrivals: the event-driven timeline against a fixed point of event-free passes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.network import solve_flows
from moesim.simulation.audit import _audit_phase, audit_components
from moesim.simulation.critical import critical_rank, lower_bound_s
from moesim.timeline import LANE, LayerWork, run_layers
from moesim.traffic import count_all_copies
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.calibration import ALGORITHMS, calibration
from tests.reference.small_rail import small_rail
from tests.reference.timeline import walk

US = 1e-6


@st.composite
def runs(draw):
    """A few layers on a small cluster; transfers, kernels and arrivals all of some tens of microseconds."""
    nodes, gpus = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    ranks = draw(st.integers((nodes - 1) * gpus + 1, nodes * gpus))
    fabric = small_rail(nodes, gpus, ranks)
    algorithm = draw(st.sampled_from(ALGORITHMS))
    constants = calibration(algorithm, "h800", sms=draw(st.sampled_from([0, 24, 66])))
    cached = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def kernel():
        return np.where(rng.random(ranks) < 0.7, rng.exponential(30 * US, ranks), 0.0)

    def work():
        tokens, slots = draw(st.integers(0, 12)), 2 * ranks
        slot_ids = rng.integers(0, slots, (tokens, 3))
        copies = count_all_copies(slot_ids, rng.integers(0, ranks, tokens), np.arange(slots) // 2, ranks, gpus)
        size = int(rng.integers(1, 1_000_000))
        flows = [
            phase_flows(fabric, copies, constants, phase, size, cached_handle=cached)
            for phase in ("dispatch", "combine")
        ]
        return LayerWork(kernel(), kernel(), 3 * kernel(), kernel(), kernel(), *flows, algorithm == "nccl-direct")

    works = [work() for _ in range(draw(st.integers(1, 3)))]
    offsets = rng.exponential(draw(st.sampled_from([0, 5, 200])) * US, ranks)
    return fabric, works, offsets, draw(st.sampled_from([0.0, 40 * US]))


def simulate(fabric, works, offsets, other_s):
    traces = []
    run_layers(fabric, len(works), lambda index: works[index], traces.append, offsets, other_s, bucket_s=100 * US)
    return traces


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-15)


@given(runs())
@settings(max_examples=40, deadline=None)
def test_every_rank_and_flow_is_where_the_fixed_point_has_it(run):
    for trace, layer in zip(simulate(*run), walk(*run), strict=True):
        close(trace.entry_s, layer.entry)
        close(trace.end_s_of_layer, layer.leave)
        for name in LANE:
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
                blamed = want.ready[phase.waited_on[rank]]  # ranks that come together may be blamed for each other
                assert any(
                    end == pytest.approx(blamed) and end - begin > longest - 1e-12 for begin, end in want.gaps[rank]
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
        assert sum(critical.held_by.values()) == pytest.approx(took, rel=1e-9, abs=1e-15)
        assert lower_bound_s(trace, fabric, work.experts_s) <= took * (1 + 1e-9)
        for phase in (trace.dispatch, trace.combine):
            _audit_phase("phase", fabric, phase)


@given(runs())
@settings(max_examples=15, deadline=None)
def test_solving_the_flows_of_a_run_again_gives_its_finish_times(run):
    fabric = run[0]
    phases = [phase for trace in simulate(*run) for phase in (trace.dispatch, trace.combine)]
    lengths = np.concatenate([np.diff(phase.flows.route_ptr) for phase in phases])
    finish = solve_flows(
        fabric.capacity,
        np.zeros(fabric.n_links),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([phase.flows.route_links for phase in phases]),
        np.concatenate([phase.flows.size for phase in phases]),
        np.concatenate([phase.start_s for phase in phases]),
        weight=np.concatenate([phase.flows.weight for phase in phases]),
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
    fabric, works, offsets, other_s = run
    factor = 2.0**power

    def scaled(flows):
        names = ("size", "delay_s", "entry_setup_s", "group_setup_s")
        changes = {name: getattr(flows, name) * factor for name in names}
        return type(flows)(**(vars(flows) | changes))

    def slower(work):
        kernels = {name: value * factor for name, value in vars(work).items() if name.endswith("_s")}
        changes = kernels | {"dispatch": scaled(work.dispatch), "combine": scaled(work.combine)}
        return LayerWork(**(vars(work) | changes))

    after = simulate(fabric, [slower(work) for work in works], offsets * factor, other_s * factor)
    for one, other in zip(simulate(*run), after, strict=True):
        assert np.array_equal(one.end_s_of_layer * factor, other.end_s_of_layer)
