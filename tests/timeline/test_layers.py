"""Ranks through layers: order of the parts, the shared expert beside dispatch, drift from layer to layer."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.measure.critical import critical_rank
from moesim.stages import OTHER, STAGES
from moesim.timeline import LayerWork, moe_layers, run_layers
from moesim.traffic import Copies
from moesim.traffic.alltoall import phase_flows
from tests.reference.alltoall_constants import plain
from tests.reference.small_rail import small_rail

US = 1e-6
NORMAL, LOW_LATENCY, NCCL = "deepep-normal", "deepep-low-latency", "nccl-direct"


@pytest.fixture(scope="module")
def fabric():
    return small_rail(1, 4)


def work(fabric, algorithm=LOW_LATENCY, copies=0, sms=None, cached=True, **kernels_us):
    """A layer in which each rank sends as many copies of 1 kB to every other."""
    sent = np.full((fabric.n_ranks, fabric.n_ranks), copies)
    constants = plain(algorithm, "h800", sms=sms)
    flows = {
        phase: phase_flows(fabric, Copies(sent, sent, sent[:, :1]), constants, phase, 1000, cached_handle=cached)
        for phase in ("dispatch", "combine")
    }
    seconds = {
        name: np.broadcast_to(np.array(kernels_us.get(name, 0.0)) * US, fabric.n_ranks).copy()
        for name in ("gate", "permute", "shared_expert", "experts", "unpermute")
    }
    return LayerWork(seconds, flows)


def run(fabric, works, offsets_us=0.0, other_us=0.0, bucket_s=10 * US, permutes_first=False):
    offsets = np.broadcast_to(np.array(offsets_us) * US, fabric.n_ranks)
    other = {OTHER.name: np.full(fabric.n_ranks, other_us * US)}
    works = [replace(work, seconds=work.seconds | other) for work in works]
    program = moe_layers(len(works), permutes_first, other=other_us > 0)
    *traces, series = run_layers(fabric, program, lambda layer, _: works[layer], offsets, bucket_s)
    return traces, series


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-15)


ALL = {"gate": 3, "permute": 5, "shared_expert": 1, "experts": 40, "unpermute": 7}


@pytest.mark.parametrize(
    ("algorithm", "order"),
    [
        (NCCL, ["gate", "permute", "dispatch", "experts", "combine", "unpermute"]),
        (NORMAL, ["gate", "dispatch", "permute", "experts", "unpermute", "combine"]),
        (LOW_LATENCY, ["gate", "dispatch", "permute", "experts", "unpermute", "combine"]),
    ],
)
def test_the_parts_of_a_layer_follow_each_other_without_a_gap(fabric, algorithm, order):
    layer = work(fabric, algorithm, 10, **ALL)
    (trace,), _ = run(fabric, [layer], offsets_us=[0, 1, 2, 8], permutes_first=algorithm == NCCL)
    assert sorted(stage.name for stage in STAGES) == sorted([*order, "shared_expert"])
    assert np.array_equal(trace.start_s[order[0]], trace.entry_s)
    for before, after in pairwise(order):
        assert np.array_equal(trace.end_s[before], trace.start_s[after])
    assert np.array_equal(trace.end_s[order[-1]], trace.end_s_of_layer)
    assert np.array_equal(trace.start_s["shared_expert"], trace.start_s["dispatch"])
    for name in ("gate", "permute", "experts", "unpermute"):
        close(trace.end_s[name] - trace.start_s[name], ALL[name] * US)
    assert (trace.exposed_s("shared_expert") == 0).all()


def test_a_kernel_without_work_takes_no_time(fabric):
    (trace,), _ = run(fabric, [work(fabric, gate=[0, 0, 5, 0])])
    assert trace.end_s["gate"].tolist() == [0, 0, 5 * US, 0]


def test_a_shared_expert_shorter_than_dispatch_is_free(fabric):
    without, with_it = (run(fabric, [work(fabric, experts=10, shared_expert=us)])[0][0] for us in (0, 24))
    close(with_it.end_s["shared_expert"], 24 * US)  # as long as a dispatch without bytes
    close(with_it.exposed_s("shared_expert"), 0)
    close(with_it.end_s_of_layer, without.end_s_of_layer)


def test_what_outlasts_dispatch_of_the_shared_expert_delays_the_routed_ones(fabric):
    shared = [0, 24, 30, 100]
    (trace,), _ = run(fabric, [work(fabric, permute=2, experts=10, shared_expert=shared)])
    close(trace.exposed_s("shared_expert"), np.array([0, 0, 6, 76]) * US)
    close(trace.start_s["permute"], np.array([24, 24, 30, 100]) * US)
    close(trace.start_s["experts"], np.array([26, 26, 32, 102]) * US)
    (trace,), _ = run(fabric, [work(fabric, permute=2, experts=10, shared_expert=100)])
    parts = critical_rank(trace, fabric).components
    close(parts["expert_compute_time_s"], (10 + 76) * US)
    close(parts["dispatch_time_s"], 24 * US)
    close(sum(parts.values()), (24 + 76 + 2 + 10 + 24) * US)


def test_the_shared_expert_runs_slower_while_the_communication_kernel_holds_sms(fabric):
    """33 of 132 SMs held: a quarter of the GPU is gone until the rank leaves dispatch, then it is back."""
    (trace,), _ = run(fabric, [work(fabric, sms=33, experts=50, shared_expert=[9, 18, 30, 0])])
    close(trace.end_s["dispatch"], 24 * US)
    # 24 us at 3/4 speed do 18 us of work; the other 12 us of rank 2 run at full speed
    close(trace.end_s["shared_expert"], np.array([12, 24, 36, 0]) * US)
    close(trace.end_s["experts"] - trace.start_s["experts"], 50 * US)


def test_sms_are_given_back_after_every_phase(fabric):
    layers = [work(fabric, NCCL, 20, **ALL) for _ in range(3)]
    traces, _ = run(fabric, layers, offsets_us=[0, 3, 9, 1], other_us=13, permutes_first=True)
    for trace in traces:
        for name in ("gate", "permute", "experts", "unpermute"):
            close(trace.end_s[name] - trace.start_s[name], ALL[name] * US)
    for before, after in pairwise(traces):
        close(after.entry_s - before.end_s_of_layer, 13 * US)


def test_uncached_normal_mode_holds_sms_only_once_all_are_in(fabric):
    """A barrier first: until the last rank is in and has done its layout, nothing is taken from the shared expert."""
    layer = work(fabric, NORMAL, sms=66, cached=False, shared_expert=[100, 90, 90, 100])
    (trace,), _ = run(fabric, [layer], offsets_us=[0, 0, 0, 50])
    # all are in at 50 + 50 of layout; rank 0 is done by then; rank 3 has half of its 100 us left and half of the GPU
    close(trace.end_s["shared_expert"], np.array([100, 90, 90, 100 + 2 * 50]) * US)
    close(trace.end_s["dispatch"], (100 + 32 + 100) * US)


def test_each_rank_enters_the_first_layer_at_its_own_offset(fabric):
    offsets = [0, 5, 11, 2]
    (trace,), _ = run(fabric, [work(fabric, gate=1, experts=10)], offsets_us=offsets)
    close(trace.entry_s, np.array(offsets) * US)
    # everybody waits for rank 2's flags, which itself waits for nobody
    close(trace.end_s["dispatch"], (11 + 1 + 24) * US)
    close(trace.dispatch.wait_s, 0)  # flags of the punctual ranks are 24 us on their way: longer than it is late
    (later,), _ = run(fabric, [work(fabric, gate=1, experts=10)], offsets_us=[0, 5, 211, 2])
    # 24 us after rank 3 came the last of the others' flags is in; rank 2's set out 206 us after rank 1's
    close(later.dispatch.wait_s, np.array([211 - 29, 211 - 29, 0, 211 - 29]) * US)
    assert later.dispatch.waited_on.tolist() == [2, 2, -1, 2]


def test_late_arrival_belongs_to_the_layer_time_of_the_critical_rank(fabric):
    (trace,), _ = run(fabric, [work(fabric, experts=[10, 10, 10, 30])], offsets_us=[0, 0, 0, 400])
    critical = critical_rank(trace, fabric)
    parts = {name: seconds / US for name, seconds in critical.components.items()}
    took = float(trace.end_s_of_layer.max())
    assert sum(parts.values()) == pytest.approx(took / US, rel=1e-9)
    assert took / US == pytest.approx(400 + 24 + 30 + 24, rel=1e-9)
    # all leave together, after the last flags: of equals the one that the others waited for is critical
    assert critical.rank == 3
    assert parts["arrival_time_s"] == pytest.approx(400, rel=1e-9)
    assert parts["wait_time_s"] == pytest.approx(0, abs=1e-9)
    assert max(critical.held_by, key=critical.held_by.get) == ("arrival", "3")


def test_other_time_runs_between_layers_and_not_after_the_last(fabric):
    traces, series = run(fabric, [work(fabric, experts=10)] * 3, other_us=100)
    layer = 24 + 10 + 24
    close([trace.entry_s[0] for trace in traces], np.arange(3) * (layer + 100) * US)
    close(traces[-1].end_s_of_layer, (3 * layer + 2 * 100) * US)
    assert series.bucket_start_s[-1] <= traces[-1].end_s_of_layer[0]  # the clock stops there


def test_ranks_that_share_no_flow_drift_apart_by_their_own_speed(fabric):
    """Flows within pairs only: the pair with the slow rank falls back by so much in every layer."""
    layer = work(fabric, experts=[10, 10, 30, 10])
    layer = replace(layer, flows={name: within_pairs(flows) for name, flows in layer.flows.items()})
    traces, _ = run(fabric, [layer] * 5)
    for index, trace in enumerate(traces, start=1):
        close(trace.end_s_of_layer, index * np.array([58, 58, 78, 78]) * US)


def within_pairs(flows):
    """The low-latency flows between ranks 0 and 1, and 2 and 3; of an intra-node fabric all routes are equally long."""
    kept = flows.source // 2 == flows.target // 2
    entries, ends = np.repeat(kept, np.diff(flows.route_ptr)), np.repeat(kept, 2)
    return replace(
        flows,
        source=flows.source[kept],
        target=flows.target[kept],
        size=flows.size[kept],
        route_ptr=np.arange(kept.sum() + 1) * 2,
        route_links=flows.route_links[entries],
        share=flows.share[entries],
        efficiency=flows.efficiency[entries],
        delays={name: seconds[kept] for name, seconds in flows.delays.items()},
        gate_ptr=np.arange(kept.sum() + 1),
        gate_ranks=flows.source[kept],
        member_ptr=np.arange(kept.sum() + 1) * 2,
        member_ranks=flows.member_ranks[ends],
        leave_ptr=None,
        leave_ranks=None,
    )


def test_work_after_combine_is_waited_for_in_the_next_dispatch(fabric):
    works = [work(fabric, NCCL, unpermute=[0, 0, 0, 60])] * 3
    traces, _ = run(fabric, works, permutes_first=True)
    lead = [float(trace.entry_s[3] - trace.entry_s[0]) for trace in traces]
    close(lead, np.array([0, 60, 60]) * US)
    for trace in traces[1:]:
        close(trace.dispatch.wait_s, np.array([36, 36, 36, 0]) * US)  # 24 us of the flags among themselves go before
        assert trace.dispatch.waited_on.tolist() == [3, 3, 3, -1]


def test_layers_are_collected_in_order_and_asked_for_once(fabric):
    asked = []
    layer = work(fabric, NCCL, 3, experts=[1, 9, 2, 4], unpermute=[0, 50, 0, 0])

    def work_of(index, micro_batch):
        asked.append((index, micro_batch))
        return layer

    *traces, _ = run_layers(fabric, moe_layers(6, permutes_first=True), work_of, np.zeros(4), 10 * US)
    assert asked == [(index, 0) for index in range(6)]
    assert [trace.layer for trace in traces] == list(range(6))


def test_a_straggler_keeps_everyone_back_in_every_layer(fabric):
    """Four layers of flags: each lasts as long as its slowest experts."""
    experts = [[10, 20, 30, 40], [90, 10, 10, 10], [5, 5, 5, 5], [10, 10, 60, 10]]
    traces, _ = run(fabric, [work(fabric, experts=us) for us in experts])
    close(traces[-1].end_s_of_layer.max(), (sum(max(us) for us in experts) + 4 * 2 * 24) * US)


@pytest.mark.parametrize("algorithm", [NORMAL, LOW_LATENCY, NCCL])
def test_the_parts_of_a_layer_add_up_where_two_micro_batches_take_turns(fabric, algorithm):
    """Stage by stage, first one micro-batch, then the other: what a layer does not do itself is wait."""
    layer = work(fabric, algorithm, 40, **ALL)
    one = moe_layers(3, permutes_first=algorithm == NCCL)
    program = tuple(
        operation._replace(micro_batch=batch, after=tuple((name, at, batch) for name, at, _ in operation.after))
        for operation in one
        for batch in (0, 1)
    )
    *traces, _ = run_layers(fabric, program, lambda *_: layer, np.array([0, 4, 1, 0]) * US, 10 * US)
    assert [(trace.layer, trace.micro_batch) for trace in traces] == [(i, b) for i in range(3) for b in (0, 1)]
    (alone,), _ = run(fabric, [layer], permutes_first=algorithm == NCCL)
    assert (alone.idle_s == 0).all()
    for trace in traces:
        critical = critical_rank(trace, fabric)
        assert trace.idle_s[critical.rank] >= 3 * US  # while one is in its gate, the other waits for it
        close(sum(critical.components.values()), trace.length_s)
        close(sum(critical.held_by.values()), trace.length_s)
        close(critical.held_by["schedule", ""], trace.idle_s[critical.rank])


@pytest.mark.parametrize("algorithm", [NORMAL, LOW_LATENCY, NCCL])
def test_curves_of_link_use_hold_every_byte(algorithm):
    fabric = small_rail(2, 2)
    sent = np.array([[1, 5, 2, 0], [3, 1, 0, 4], [2, 2, 2, 9], [0, 1, 8, 1]])
    constants = plain(algorithm, "h800")
    nodes = np.maximum(sent[:, [0, 2]], sent[:, [1, 3]])
    copies = Copies(sent, sent, nodes)
    flows = {phase: phase_flows(fabric, copies, constants, phase, 100_000) for phase in ("dispatch", "combine")}
    layer = replace(work(fabric), flows=flows)
    (trace,), series = run(fabric, [layer], offsets_us=[0, 3, 1, 2], bucket_s=7 * US)
    carried = (series.utilisation * fabric.capacity * series.bucket_s).sum(axis=0)
    want = np.zeros(fabric.n_links)
    for phase in (trace.dispatch.flows, trace.combine.flows):
        np.add.at(want, phase.route_links, np.repeat(phase.size, np.diff(phase.route_ptr)) * phase.weight)
    np.testing.assert_allclose(carried, want, rtol=1e-9, atol=1e-3)
    assert series.utilisation.max() <= 1 + 1e-9
    close(np.diff(series.bucket_start_s), 7 * US)
    assert series.bucket_start_s[-1] <= trace.end_s_of_layer.max()


def test_a_bucket_without_width_is_refused(fabric):
    with pytest.raises(InputError, match="bucket_s"):
        run(fabric, [work(fabric)], bucket_s=0.0)
