"""Every flow against SimGrid, whose answers are kept in ``data`` (``benchmarks/record_simgrid.py`` wrote them)."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import workloads
from moesim.network import solve_flows

DATA = Path(__file__).parent / "data"
EVERY = 16


def random_nets():
    with np.load(DATA / "simgrid_random.npz") as file:
        data = {name: file[name] for name in file.files}
    links = flows = entries = 0
    for n_links, n_flows in zip(data["n_links"].tolist(), data["n_flows"].tolist(), strict=True):
        length = data["length"][flows : flows + n_flows].astype(np.int64)
        of_net = slice(flows, flows + n_flows)
        yield (
            {
                "capacity": data["capacity"][links : links + n_links],
                "latency": np.zeros(n_links),
                "route_ptr": np.concatenate([[0], np.cumsum(length)]),
                "route_links": data["links"][entries : entries + length.sum()].astype(np.int32),
                "size": data["size"][of_net].astype(np.float64),
                "start": data["start_1024th"][of_net] / 1024,
            },
            data["finish"][of_net],
        )
        links, flows, entries = links + n_links, flows + n_flows, entries + int(length.sum())


@pytest.mark.jit
def test_on_two_hundred_random_networks_every_flow_ends_when_simgrid_says():
    worst, n_nets, n_flows, staggered = 0.0, 0, 0, 0
    for net, finish in random_nets():
        worst = max(worst, float(np.abs(solve_flows(**net) / finish - 1).max()))
        n_nets, n_flows = n_nets + 1, n_flows + len(finish)
        staggered += bool(net["start"].any())
    assert (n_nets, n_flows) == (200, 7637) and staggered > 80
    assert worst < 1e-9


@pytest.mark.jit
def test_on_fifty_random_networks_whose_capacities_change_on_the_way_every_flow_ends_when_simgrid_says():
    with np.load(DATA / "simgrid_changing.npz") as file:
        data = {name: file[name] for name in file.files}
    event, flow, worst, moved = 0, 0, 0.0, 0
    for (net, still), n_events in zip(random_nets(), data["n_events"].tolist(), strict=False):
        of_net = slice(event, event + n_events)
        changes = data["time"][of_net], data["link"][of_net], data["capacity"][of_net]
        finish = data["finish"][flow : flow + len(still)]
        worst = max(worst, float(np.abs(solve_flows(**net, capacity_events=changes) / finish - 1).max()))
        moved += float(np.abs(finish / still - 1).max()) > 0.05
        event, flow = event + n_events, flow + len(still)
    assert (event, flow, len(data["n_events"])) == (len(data["time"]), len(data["finish"]), 50)
    assert moved > 35  # the changes matter
    assert worst < 1e-9


@pytest.mark.jit
@pytest.mark.parametrize(
    ("name", "flows"),
    [
        ("pairs64", lambda: workloads.pairs(64)),
        ("pairs128", lambda: workloads.pairs(128)),
        ("leaf_spine128", lambda: workloads.leaf_spine(128)),
        ("switch64", lambda: workloads.switch(64, "uniform")),
    ],
)
def test_in_a_dispatch_every_sixteenth_flow_ends_when_simgrid_says(name, flows):
    finish = np.load(DATA / f"simgrid_{name}.npy")
    got = solve_flows(**flows().arguments())[::EVERY]
    assert len(got) == len(finish) > 200
    np.testing.assert_allclose(got, finish, rtol=1e-9)
