"""The one loop over steps and layers: what goes round, what it yields, and in which order."""

from dataclasses import replace

import numpy as np

from moesim.layer.kernel_seconds import KernelLedger
from moesim.layer.parts import build_parts
from moesim.layer.token_batches import open_workload
from moesim.measure.summary import SummaryBuilder
from moesim.placement import round_robin
from moesim.run.routed_steps import initial_state, route_step, route_steps
from moesim.run.steps import TimedLayer, run_steps
from moesim.timeline import LinkSeries
from tests.run.small import RANKS, scenario


def opened(*overrides):
    parts = build_parts(scenario(*overrides))
    return parts, open_workload(parts)


def test_experts_stay_where_the_state_has_them_and_are_placed_by_the_load_elsewhere():
    parts, workload = opened("placement.policy=eplb", "workload.layers_simulated=2")
    batch = workload.batch(0)
    state = initial_state(parts, batch)
    placed, after = route_step(parts, state, batch)
    assert after == state and not state.placement  # a run without a rebalancer places each step anew
    first, second = batch.layers
    kept = round_robin(parts.router.n_experts, RANKS)
    stayed, after = route_step(parts, replace(state, placement={first: kept}), batch)
    assert after.placement == {first: kept}
    assert stayed.layers[first].placement is kept
    assert (stayed.layers[first].slot_tokens == stayed.layers[first].expert_tokens[kept.slot_expert]).all()
    assert (stayed.layers[second].placement.slot_rank == placed.layers[second].placement.slot_rank).all()


def test_layers_come_in_order_and_behind_each_step_its_link_use():
    parts, workload = opened("workload.layers_simulated=3", "workload.steps=2", "schedule.start_offset=7us")
    ledger, summary = KernelLedger(), SummaryBuilder(parts)
    steps = list(route_steps(parts, map(workload.batch, range(2))))
    timed = list(run_steps(parts, steps, summary, ledger))
    assert [type(one) for one in timed] == [*[TimedLayer] * 3, LinkSeries] * 2
    layers = [one for one in timed if isinstance(one, TimedLayer)]
    assert [(one.step, one.trace.layer) for one in layers] == [(step, layer) for step in (0, 1) for layer in range(3)]
    for one in layers:
        assert one.recorded in steps[one.step].layers
        assert one.load.slot_tokens is steps[one.step].layers[one.recorded].slot_tokens
        for name, bytes_on in one.wire.items():
            assert (bytes_on == one.trace.phases[name].flows.link_wire_bytes(parts.fabric.n_links)).all()
    # Each step has a clock of its own.
    assert [float(one.trace.entry_s.min()) for one in layers if one.trace.layer == 0] == [7e-6, 7e-6]
    got = summary.build(ledger.shares(), counterfactual=False)
    assert got["layers"] == 6 and got["tokens"] == steps[0].tokens
    assert np.isclose(got["layer_time_s"], np.mean([one.trace.length_s for one in layers]))
