"""Runs on clusters whose links are not all alike: overridden in the scenario, or changed while the run is under way."""

import numpy as np
import pytest

import moesim
from moesim.cluster import load_topology, overridden
from moesim.errors import InputError
from moesim.layer import build_fabric
from moesim.network import NetworkClock, solve_flows
from moesim.timeline.interchangeable_ranks import ranks_are_alike
from moesim.timeline.uniform_alltoall import alltoall_table
from moesim.traffic import calibration
from moesim.validate.alltoallv_replay import fabric_of
from tests.run.small import SMALL, run, scenario

# Constants without set-up and kernel work: what is slow is a wire.
RAIL = ("cluster.topology=h800-8x8-rail", "parallel.ep=16", "alltoall.calibration=deepep-normal-h800")
SLOW = "cluster.overrides=[{where: n1.gpu2.nic, bandwidth: 20Gb/s}]"


def capacities(result):
    links = result.tables["links"].query("layer == 0 and phase == 'dispatch'")
    return dict(zip(links.link, links.capacity_bytes_per_s, strict=True))


def test_an_override_is_the_capacity_of_its_links_and_slows_what_crosses_them():
    plain, slow = run(*RAIL), run(*RAIL, SLOW)
    before, after = capacities(plain), capacities(slow)
    changed = {"n1.gpu2->rail2.leaf": 2.5e9, "rail2.leaf->n1.gpu2": 2.5e9}
    assert after == before | changed
    assert slow.explanation["topology"]["peak_bytes_per_s"]["nic"] == [2.5e9, 50e9]
    links = slow.tables["links"].query("layer == 0 and phase == 'dispatch' and link in @changed")
    rate = 2.5e9 * slow.explanation["alltoall"]["dispatch"]["nic_efficiency"]
    assert slow.summary["dispatch_kernel_time_s"] >= links.wire_bytes.max() / rate
    assert slow.summary["dispatch_kernel_time_s"] > 3 * plain.summary["dispatch_kernel_time_s"]
    assert slow.summary["lower_bound_s"] > plain.summary["lower_bound_s"]
    # Who goes where is a question of tokens, not of wires.
    assert slow.summary["nic_wire_bytes"] == plain.summary["nic_wire_bytes"]


def test_overriding_every_nic_and_uplink_is_the_nic_bandwidth_to_the_last_bit():
    nics = "[{where: [rail0, rail1, rail2, rail3, rail4, rail5, rail6, rail7], bandwidth: 25GB/s}, "
    one_by_one = run(*RAIL, f"cluster.overrides={nics}{{where: spines, bandwidth: 200GB/s}}]")
    at_once = run(*RAIL, "cluster.nic_bandwidth=25GB/s")
    assert capacities(one_by_one) == capacities(at_once)
    assert one_by_one.summary == at_once.summary


def test_flows_per_port_feel_a_slow_port_as_flows_of_pairs_do():
    pairs, ports = run(*RAIL, SLOW), run(*RAIL, SLOW, "cluster.flows=ports")
    for phase in ("dispatch", "combine"):
        links = pairs.tables["links"].query("layer == 0 and phase == @phase and link_class == 'nic'")
        busiest = links[links.link.str.contains("n1.gpu2")].wire_bytes.max()
        rate = 2.5e9 * pairs.explanation["alltoall"][phase]["nic_efficiency"]
        key = f"{phase}_kernel_time_s"
        # The slow port is busy from its first byte, after the route's latency, to the end; everybody waits for it.
        assert ports.summary[key] == pytest.approx(busiest / rate + (2.8 + 3.33) * 1e-6, rel=1e-9)
        assert ports.summary[key] == pytest.approx(pairs.summary[key], rel=0.05)


def test_one_other_port_tells_ranks_apart_and_ports_that_are_all_other_do_not():
    fabric = load_topology("hgx-h800")
    every, one = (
        overridden(fabric, [(where, 80e9)]) for where in ([f"n0.gpu{gpu}.nvlink" for gpu in range(8)], "n0.gpu3.nvlink")
    )
    assert ranks_are_alike(every)
    assert not ranks_are_alike(one)
    # Every sender takes the protocol that is fastest on its own port: for so long a message the same on either.
    times = [alltoall_table(each, "nccl-direct", [64 << 20])[0].time_s for each in (fabric, every, one)]
    fast = max(calibration("nccl-direct", "h800").protocols, key=lambda one: one.nvlink_rate)
    wire_s = 7 * (8 << 20) / (fast.nvlink_rate * 80e9 / 200e9)
    assert times[1] == pytest.approx(fast.setup_intra_node_s + wire_s, rel=1e-6)
    # Everybody waits for the slow one, so that one slow port costs what eight do.
    assert times[1] == pytest.approx(times[2], rel=1e-9)
    assert times[0] < times[1]


def test_an_override_may_name_what_takes_no_part():
    alone = run(*RAIL)
    beyond = run(*RAIL, "cluster.overrides=[{where: n7.nic, bandwidth: 1Gb/s}]")
    assert beyond.summary == alone.summary


def test_a_run_s_cluster_is_built_again_from_its_resolved_scenario():
    result = run(*RAIL, SLOW)
    again, meant = fabric_of(result, None), build_fabric(scenario(*RAIL, SLOW))
    assert again.capacity.tolist() == meant.capacity.tolist()
    assert again.n_ranks == 16
    assert 2.5e9 in again.capacity


def test_places_that_are_not_there_are_told_with_the_line_of_each(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "cluster:\n"
        "  topology: h800-8x8-rail\n"
        "  overrides:\n"
        "    - {where: n9.nic, bandwidth: 200Gb/s}\n"
        "    - where:\n"
        "        - rail2\n"
        "        - spine0\n"
        "      bandwidth: 200Gb/s\n"
        "    - {where: n3.gpu2, bandwidth: 200Gb/s}\n"
    )
    loaded = moesim.load_scenario(tmp_path / "s.yaml")
    with pytest.raises(InputError) as refused:
        build_fabric(loaded)
    lines = [error.line() for error in (refused.value, *refused.value.others)]
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{tmp_path}/s.yaml:4:15", "cluster.overrides[0].where"],
        [f"{tmp_path}/s.yaml:7:11", "cluster.overrides[1].where[1]"],
        [f"{tmp_path}/s.yaml:9:15", "cluster.overrides[2].where"],
    ]


@pytest.mark.parametrize(
    ("made", "where"),
    [
        (lambda: scenario("cluster.overrides=[{where: n9, bandwidth: 1GB/s}]"), "-o cluster.overrides="),
        (
            lambda: scenario(cluster={**SMALL["cluster"], "overrides": [{"where": "n9", "bandwidth": "1GB/s"}]}),
            "scenario",
        ),
        (
            lambda: scenario(
                variants={"v": {"cluster.overrides": [{"where": "n9", "bandwidth": "1GB/s"}]}}
            ).variant_scenarios()["v"],
            "scenario",
        ),
        (
            lambda: moesim.Scenario(
                cluster={"topology": "hgx-h800", "overrides": [{"where": "n9", "bandwidth": "1GB/s"}]}
            ),
            "cluster.overrides[0].where",
        ),
    ],
    ids=["an override", "a mapping", "a variant", "built by hand"],
)
def test_a_place_that_is_not_there_has_a_place_in_what_was_given(made, where):
    with pytest.raises(InputError) as refused:
        build_fabric(made())
    assert refused.value.where.startswith(where)


@pytest.fixture
def slowed(monkeypatch):
    """Let every clock change a link's capacity at given times, as a fault would."""

    def slow(link, *changes):
        plain = NetworkClock.__init__

        def with_fault(clock, env, network):
            plain(clock, env, network)

            def fault():
                for seconds, factor in changes:
                    yield env.timeout(seconds - env.now)
                    clock.scale(link, "fault", factor)

            env.process(fault())

        monkeypatch.setattr(NetworkClock, "__init__", with_fault)

    return slow


def test_a_run_in_which_a_wire_changes_stands_in_its_exported_flows_and_in_every_utilisation(slowed):
    before = run(*RAIL)
    flows = before.flows
    link = build_fabric(scenario(*RAIL)).link_names.index("n1.gpu2->rail2.leaf")
    crossing = np.flatnonzero(flows["route_links"] == link)
    flow = np.searchsorted(flows["route_ptr"], crossing, side="right") - 1
    flow = flow[(flows["phase"][flow] == 0) & (flows["layer"][flow] == 0)]
    begin, end = flows["start"][flow].min(), flows["finish"][flow].max()
    slowed(link, (begin + (end - begin) / 2, 0.05), (begin + 5 * (end - begin), 1.0))
    result = moesim.simulate(scenario(*RAIL))
    flows = result.flows
    assert flows["event_link"].tolist() == [link, link]
    assert flows["event_capacity"].tolist() == [0.05 * 50e9, 50e9]
    names = ("capacity", "latency", "route_ptr", "route_links", "size", "start", "weight")
    asked = {name: flows[name] for name in names}
    events = tuple(flows[f"event_{name}"] for name in ("time", "link", "capacity"))
    np.testing.assert_allclose(solve_flows(**asked, capacity_events=events), flows["finish"], rtol=1e-9)
    assert np.abs(solve_flows(**asked) - flows["finish"]).max() > end - begin
    assert result.summary["layer_time_s"] > before.summary["layer_time_s"] + (end - begin)
    row = result.tables["links"].query("layer == 0 and phase == 'dispatch' and link == 'n1.gpu2->rail2.leaf'").iloc[0]
    first, last = (flows[name][(flows["phase"] == 0) & (flows["layer"] == 0)] for name in ("start", "finish"))
    first, last = first.min(), last.max()
    slow_s = min(last, events[0][1]) - events[0][0]
    reach = result.explanation["alltoall"]["dispatch"]["nic_efficiency"] * 50e9
    assert row.utilisation == pytest.approx(row.wire_bytes / reach / (last - first - 0.95 * slow_s), rel=1e-9)
    assert result.summary["bottleneck_utilisation"] <= 1 + 1e-9
    curve = result.tables["link_series"].query("phase == 'dispatch' and link_class == 'nic'")
    during = curve[(curve.time_s > events[0][0]) & (curve.time_s < last - curve.time_s.diff().max())]
    # The slow link is full while it is slow.
    assert len(during) > 5
    assert during.utilisation_max.to_numpy() == pytest.approx(1.0, rel=1e-9)


def test_a_wire_that_changes_in_a_run_with_steps_is_refused_in_a_line(slowed):
    slowed(0, (1e-4, 0.5))
    from moesim.run import steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "steps_pay", lambda flows: True)
        with pytest.raises(InputError, match=r"network\.tolerance: .* it must be 0"):
            moesim.simulate(scenario(*RAIL, "network.tolerance=1%"))
