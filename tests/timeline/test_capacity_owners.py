"""Whoever holds a part of a GPU or of a wire: kernels of two phases at once, faults, and what is left to the others."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import simpy

from moesim.measure.flow_export import FlowExport, joint_flows
from moesim.network import FlowNetwork, NetworkClock, solve_flows
from moesim.timeline.link_use import phase_use
from moesim.timeline.phase import PhaseRun, network_capacity
from tests.reference.small_rail import small_rail
from tests.timeline.test_phases import US, pair_flows

FABRIC = small_rail(2, 2)
NIC = FABRIC.link_names.index("n0.gpu0->rail0.leaf")


class Machine:
    """Phases on one clock, and what else happens on it."""

    def __init__(self):
        self.env = simpy.Environment()
        self.clock = NetworkClock(self.env, FlowNetwork(network_capacity(FABRIC), log_bottlenecks=True))
        self.sm = np.arange(4, dtype=np.int32) + FABRIC.n_links

    def phase(self, flows, arrivals=(0.0,) * 4):
        phase = PhaseRun(self.clock, flows, self.sm)

        def rank(number):
            yield self.env.timeout(arrivals[number])
            yield from phase.enter(number)

        for number in range(4):
            self.env.process(rank(number))
        return phase

    def at(self, seconds, act):
        def process():
            yield self.env.timeout(seconds)
            act()

        self.env.process(process())

    def free(self, rank):
        return self.clock.network.capacity(int(self.sm[rank]))


def exported(dispatch, combine=None):
    """What flows.npz holds of a layer of these two phases."""
    export = FlowExport(FABRIC)
    export.add_layer(SimpleNamespace(layer=0, phases={"dispatch": dispatch, "combine": combine or dispatch}))
    return joint_flows([export])[0]


def again(arrays, events=True):
    """Solve exported flows again."""
    names = ("capacity", "latency", "route_ptr", "route_links", "size", "start", "weight")
    changes = tuple(arrays[f"event_{name}"] for name in ("time", "link", "capacity")) if events else None
    return solve_flows(**{name: arrays[name] for name in names}, capacity_events=changes)


def test_two_communication_kernels_and_a_fault_at_once_each_take_their_part_of_the_gpu():
    flows = pair_flows(FABRIC, {(0, 2): 50e9 * 10 * US}, delay_s=0.0)
    machine = Machine()
    short = machine.phase(replace(flows, sms=33))
    machine.phase(replace(flows, sms=66), arrivals=(5 * US,) * 4)
    seen = []
    for when in (2, 8, 12, 18, 25):
        machine.at(when * US, lambda: seen.append(machine.free(0)))
    machine.at(11 * US, lambda: machine.clock.scale(int(machine.sm[0]), "fault", 0.8))
    machine.env.run()
    # Alone until 5; the wire is shared from then on: the first ends at 15, the second at 20.
    assert short.leave_s[0] == pytest.approx(15 * US)
    assert seen == [0.75, 0.375, 0.375 * 0.8, 0.5 * 0.8, 0.8]
    # Ranks 1 and 3 have no flow and leave as they come.
    assert machine.free(1) == 1.0


def test_a_rank_that_left_before_the_gate_opened_holds_nothing():
    flows = replace(pair_flows(FABRIC, {(0, 2): 50e9 * 10 * US}), sms=33, all_ranks_gate=True)
    machine = Machine()
    phase = machine.phase(flows, arrivals=(0.0, 0.0, 0.0, 4 * US))
    seen = []
    machine.at(8 * US, lambda: seen.extend(machine.free(rank) for rank in range(4)))
    machine.env.run()
    assert phase.leave_s[1] == 0.0
    assert seen[:3] == [0.75, 1.0, 0.75]


def test_exported_flows_give_the_times_of_a_run_in_which_a_wire_and_a_kernel_changed():
    sizes = {(0, 2): 50e9 * 30 * US, (0, 3): 50e9 * 10 * US, (1, 2): 50e9 * 20 * US, (2, 1): 50e9 * 20 * US}
    machine = Machine()
    first = machine.phase(pair_flows(FABRIC, sizes, delay_s=3 * US))
    second = machine.phase(pair_flows(FABRIC, sizes), arrivals=(40 * US,) * 4)
    for when, link, owner, factor in (
        (10, NIC, "fault", 0.25),
        (15, int(machine.sm[0]), "kernel", 0.5),
        (50, NIC, "fault", 1.0),
    ):
        machine.at(when * US, lambda link=link, owner=owner, factor=factor: machine.clock.scale(link, owner, factor))
    machine.env.run()
    arrays = exported(first.trace(), second.trace())
    # Ranks' own links are not exported, and nor are their changes.
    assert arrays["event_link"].tolist() == [NIC, NIC]
    np.testing.assert_allclose(arrays["event_time"], [10 * US, 50 * US])
    assert arrays["event_capacity"].tolist() == [0.25 * 50e9, 50e9]
    np.testing.assert_allclose(again(arrays), arrays["finish"], rtol=1e-12)
    assert np.abs(again(arrays, events=False) - arrays["finish"]).max() > 5 * US


def test_a_kernel_links_change_is_exported_under_the_number_that_its_flows_have_there():
    kernels = FABRIC.n_links + FABRIC.n_ranks
    flows = pair_flows(FABRIC, {(0, 2): 1e5})
    work = SimpleNamespace(ptr=np.array([0, 1]), ranks=np.array([2], np.int32), s_per_byte=np.array([1e-10]))
    machine = Machine()
    phase, elsewhere = machine.phase(replace(flows, kernel=work)), machine.phase(pair_flows(FABRIC, {(1, 0): 1e5}))
    machine.at(4 * US, lambda: machine.clock.scale(kernels + 2, "slow", 0.5))
    machine.env.run()
    arrays = exported(phase.trace(), elsewhere.trace())
    assert arrays["event_link"].tolist() == [FABRIC.n_links + 2]
    assert arrays["finish"][0] == pytest.approx(4 * US + (1e5 * 1e-10 - 4 * US) / 0.5)
    np.testing.assert_allclose(again(arrays), arrays["finish"], rtol=1e-12)


def test_without_a_change_nothing_of_it_is_exported():
    machine = Machine()
    phase = machine.phase(replace(pair_flows(FABRIC, {(0, 2): 1e6}), sms=20))
    machine.env.run()
    assert not [name for name in exported(phase.trace()) if name.startswith("event")]


def test_a_link_that_is_full_all_the_time_is_used_up_whatever_becomes_of_its_capacity():
    sizes = {(0, 2): 50e9 * 30 * US, (1, 3): 50e9 * 10 * US}
    flows = replace(pair_flows(FABRIC, sizes), efficiency=np.full(4, 0.8))
    machine = Machine()
    phase = machine.phase(flows)
    machine.at(10 * US, lambda: machine.clock.scale(NIC, "fault", 0.2))
    machine.at(30 * US, lambda: machine.clock.scale(NIC, "fault", 0.0))
    machine.at(37 * US, lambda: machine.clock.scale(NIC, "fault", 1.0))
    machine.env.run()
    trace = phase.trace()
    # 37.5 us at full rate: 10, then 4 us' worth in 20, none in 7, the rest at full rate.
    assert trace.finish_s.max() == pytest.approx((37 + 37.5 - 14) * US)
    use = dict(zip(FABRIC.link_names, phase_use(FABRIC, trace, flows.link_wire_bytes(FABRIC.n_links)), strict=True))
    assert use["n0.gpu0->rail0.leaf"] == pytest.approx(1.0, rel=1e-12)
    # The other end could have carried the nominal rate all along.
    assert use["rail0.leaf->n1.gpu0"] == pytest.approx(37.5 / 60.5, rel=1e-12)
    assert use["n0.gpu1->rail1.leaf"] == pytest.approx(12.5 / 60.5, rel=1e-12)
    assert use["n0.gpu1->n0.nvswitch"] == 0.0
