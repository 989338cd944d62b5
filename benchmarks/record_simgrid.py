"""Records SimGrid's finish times for the tests: ``python -m benchmarks.record_simgrid`` writes tests/network/data.

200 random networks whole (routes, sizes, starts and every finish time), every finish time of 20 random clusters with
several groups on each (``tests.reference.group_nets`` builds them again), and of the big workloads every sixteenth
flow: those are built again by ``benchmarks.workloads``. SimGrid must be there; see ``benchmarks/README.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import simgrid, workloads
from benchmarks.simgrid import Events
from benchmarks.workloads import Flows
from tests.reference import group_nets

DATA = Path(__file__).parents[1] / "tests/network/data"
EVERY = 16


def random_net(rng: np.random.Generator) -> Flows:
    """Up to 24 links and 70 flows over one to five of them, whole sizes, half of the nets with staggered starts."""
    n_links, n_flows = int(rng.integers(2, 25)), int(rng.integers(2, 71))
    capacity = (
        rng.choice([1e9, 2e9, 3e9, 5e9, 7e9], n_links) if rng.random() < 0.5 else rng.integers(1, 1000, n_links) * 1e7
    )
    lengths = rng.integers(1, min(5, n_links) + 1, n_flows)
    links = np.concatenate([rng.choice(n_links, length, replace=False) for length in lengths])
    size = rng.choice([1e6, 2e6, 4e6], n_flows) if rng.random() < 0.3 else rng.integers(1, 10**8, n_flows).astype(float)
    start = np.zeros(n_flows) if rng.random() < 0.5 else rng.integers(0, 64, n_flows) / 1024
    return Flows(
        "random",
        capacity.astype(np.float64),
        np.concatenate([[0], np.cumsum(lengths)]),
        links.astype(np.int32),
        None,
        size,
        start,
        np.stack([2 * np.arange(n_flows), 2 * np.arange(n_flows) + 1]),
    )


def record_random(n: int) -> None:
    """Write simgrid_random.npz."""
    rng = np.random.default_rng(2026)
    nets = [random_net(rng) for _ in range(n)]
    finish = []
    for net in nets:
        run = simgrid.solve(net)
        assert run is not None
        finish.append(run.finish)
    np.savez_compressed(
        DATA / "simgrid_random.npz",
        n_links=np.array([len(net.capacity) for net in nets], np.uint8),
        n_flows=np.array([net.n for net in nets], np.uint8),
        capacity=np.concatenate([net.capacity for net in nets]),
        length=np.concatenate([np.diff(net.route_ptr) for net in nets]).astype(np.uint8),
        links=np.concatenate([net.route_links for net in nets]).astype(np.uint8),
        size=np.concatenate([net.size for net in nets]).astype(np.uint32),
        start_1024th=np.concatenate([net.start * 1024 for net in nets]).astype(np.uint8),
        finish=np.concatenate(finish),
    )


def record_groups() -> None:
    """Write simgrid_groups.npz: every finish time of several groups' all-to-alls on each of 20 random clusters."""
    rng, finish = np.random.default_rng(group_nets.SEED), []
    for _ in range(group_nets.N_NETS):
        groups = group_nets.random_groups(rng)
        run = simgrid.solve(group_nets.flows_between(groups, group_nets.on_one_clock(groups))[0])
        assert run is not None
        finish.append(run.finish)
    np.savez_compressed(
        DATA / "simgrid_groups.npz", n_flows=np.array([len(each) for each in finish]), finish=np.concatenate(finish)
    )


def random_changes(rng: np.random.Generator, net: Flows, last_s: float) -> Events:
    """Up to twelve changes of a net's capacities while its flows are on the way: faults that come and go.

    All come after the last start and none exceeds the net's own capacity: SimGrid caps a flow for good at the least
    capacity that its links have when it starts.
    """
    n = int(rng.integers(1, 13))
    link = rng.integers(0, len(net.capacity), n).astype(np.int32)
    begin_s = float(net.start.max())
    time = begin_s + np.sort(rng.integers(1, 1 << 20, n)) / (1 << 20) * (last_s - begin_s)
    return time, link, net.capacity[link] * rng.choice([0.01, 0.25, 0.5, 0.9, 1.0, 1.0], n)


def record_changing(n: int) -> None:
    """Write simgrid_changing.npz: the first nets of simgrid_random.npz with changes of capacity, and the ends."""
    rng, nets = np.random.default_rng(2027), np.random.default_rng(2026)
    found: list[tuple[Events, NDArray[np.float64]]] = []
    for net in (random_net(nets) for _ in range(n)):
        still = simgrid.solve(net)
        assert still is not None
        events = random_changes(rng, net, float(still.finish.max()))
        run = simgrid.solve(net, events=events)
        assert run is not None
        found.append((events, run.finish))
    time, link, capacity = (np.concatenate(column) for column in zip(*(events for events, _ in found), strict=True))
    np.savez_compressed(
        DATA / "simgrid_changing.npz",
        n_events=np.array([len(events[0]) for events, _ in found], np.uint8),
        time=time,
        link=link,
        capacity=capacity,
        finish=np.concatenate([finish for _, finish in found]),
    )


def record_workload(flows: Flows, name: str) -> None:
    """Write simgrid_NAME.npy: the finish time of every sixteenth flow."""
    run = simgrid.solve(flows)
    assert run is not None
    np.save(DATA / f"simgrid_{name}.npy", run.finish[::EVERY])


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or ["random", "changing", "groups", "pairs64", "pairs128", "leaf_spine128", "switch64"]
    if "random" in wanted:
        record_random(200)
    if "groups" in wanted:
        record_groups()
    if "changing" in wanted:
        record_changing(50)
    if "pairs64" in wanted:
        record_workload(workloads.pairs(64), "pairs64")
    if "pairs128" in wanted:
        record_workload(workloads.pairs(128), "pairs128")
    if "leaf_spine128" in wanted:
        record_workload(workloads.leaf_spine(128), "leaf_spine128")
    if "switch64" in wanted:
        record_workload(workloads.switch(64, "uniform"), "switch64")
