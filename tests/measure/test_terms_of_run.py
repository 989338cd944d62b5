"""The terms of a run's numbers: they give the number, each comes from inputs of its own, and only its own moves it."""

import json
import math
import re

import numpy as np
import pytest

import moesim
from moesim.alltoall_library import ALGORITHMS, algorithm_named
from moesim.results.definitions import SUMMARY
from moesim.traffic.constant_sets import DATA
from tests.run.small import run, scenario

RAIL = ("cluster.topology=h800-8x8-rail", "parallel.ep=16", "routing.groups=node", "routing.top_groups=2")
OF_ONE_SOURCE = "deepep-normal-h800"
COUNTS = {"tokens", "distinct_tokens", "ranks", "layers", "seed", "counterfactual"}


def value_of(terms):
    """The value that a list of terms gives: written here once more, from the contract's words."""
    values = [term["value"] for term in terms]
    how = terms[0].get("combine") if terms else None
    if how is None:
        return sum(values)
    return {
        "ratio": lambda: values[0] / values[1],
        "product": lambda: float(np.prod(values)),
        "max": lambda: max(values),
        "mean": lambda: float(np.mean(values)),
    }[how]()


def check(result):
    """Every number but words and counts has terms that give it, and so on down; all have a name and a source."""
    terms = json.loads(json.dumps(result.explanation["terms"]))
    for key, value in result.summary.items():
        if value is None or isinstance(value, str) or key in COUNTS:
            assert key not in terms
            continue
        # What is left of two clocks can be smaller than their rounding.
        assert value_of(terms[key]) == pytest.approx(value, rel=1e-9, abs=1e-15), key
        check_below(terms[key], key)
    return terms


def check_below(terms, key):
    for term in terms:
        assert term["name"] and term["source"] and term["unit"] is not None
        assert not re.search(r"\b(other|rest|remainder|rounding)\b", term["name"]), key
        if shares := term.get("of"):
            assert sum(share["value"] for share in shares) == pytest.approx(term["value"], rel=1e-9, abs=1e-15), key
        if below := term.get("terms"):
            assert value_of(below) == pytest.approx(term["value"], rel=1e-9, abs=1e-15), key
            check_below(below, key)


def drawn(seed):
    """Overrides of the small scenario: another library, cluster, load, arrival, placement or router."""
    rng = np.random.default_rng(seed)

    def one_of(*values):
        return str(rng.choice(values))

    topology, ranks = one_of("hgx-h800 8", "h800-8x8-rail 16", "h100-8x8-leaf-spine 16", "hgx-h100 4").split()
    nodes = 2 if ranks == "16" else 1
    algorithm = one_of(*(name for name in ALGORITHMS if nodes == 1 or not algorithm_named(name).one_domain))
    kind = one_of("v1", "v2", "v3")
    overrides = [
        f"cluster.topology={topology}",
        f"parallel.ep={ranks}",
        f"alltoall.algorithm={algorithm}",
        f"routing={{kind: {kind}, top_k: {one_of(2, 4)}, groups: {one_of(1, 8)}, top_groups: 1}}",
        f"workload.tokens_per_rank={one_of(1, 7, 32)}",
        f"workload.layers_simulated={one_of(1, 2)}",
        f"workload.synthetic.sigma={one_of(0.1, 1.5)}",
        f"schedule.start_offset={one_of('0us', '{distribution: lognormal, sigma: 1.0, scale: 80us}')}",
        f"schedule.other_time={one_of('0us', '40us')}",
        f"model.n_shared={one_of(0, 1, 4)}",
        f"model.expert_hidden={one_of(128, 2048)}",
        f"losses.form={one_of('paper', 'document')}",
        f"seed={seed}",
    ]
    if algorithm_named(algorithm).handle:
        overrides.append(f"alltoall.cached_handle={one_of('true', 'false')}")
    if algorithm_named(algorithm).receive_hook:
        overrides.append(f"alltoall.receive_hook={one_of('true', 'false')}")
    if rng.random() < 0.3:
        overrides += ["placement.policy=eplb", "placement.redundant_experts=16"]
    if rng.random() < 0.3:
        overrides.append("cluster.overrides=[{where: n0.gpu1.nvlink, bandwidth: 20GB/s}]")
    return overrides


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=pytest.mark.slow) for block in range(1, 10))])
def test_the_terms_of_every_number_give_it_in_two_hundred_drawn_scenarios(block):
    for seed in range(20 * block, 20 * block + 20):
        check(moesim.simulate(scenario(*drawn(seed))))


def test_experts_that_come_with_the_workload_have_no_terms_of_a_router(tmp_path):
    lines = ["layer,expert,count", *(f"0,{expert},{expert + 1}" for expert in range(32))]
    (tmp_path / "counts.csv").write_text("\n".join(lines))
    workload = {"counts": str(tmp_path / "counts.csv"), "tokens_per_rank": 16}
    terms = check(moesim.simulate(scenario(workload=workload, routing={"kind": "v1", "top_k": 4, "groups": 1})))
    assert "expert_loss" not in terms and "gate_mass_lost" not in terms and "dispatch_time_s" in terms


def named(result, key):
    return {term["name"]: term["value"] for term in result.explanation["terms"][key]}


def moved(before, after, key):
    """Factors by which the terms of a number moved, of those that did."""
    a, b = named(before, key), named(after, key)
    assert set(a) == set(b)
    return {name: b[name] / a[name] for name in a if not math.isclose(a[name], b[name], rel_tol=1e-6)}


def with_constant(tmp_path, name, value):
    """``OF_ONE_SOURCE`` with another value of one constant, inside a node."""
    text = (DATA / f"{OF_ONE_SOURCE}.yaml").read_text()
    changed, found = re.subn(rf"\b{name}: \S+", f"{name}: {value}", text, count=1)
    assert found == 1
    (tmp_path / f"{name}.yaml").write_text(changed)
    return f"alltoall.calibration={tmp_path / name}.yaml"


@pytest.mark.parametrize(
    ("constant", "doubled", "term"),
    [
        ("layout", "100us", "layout"),
        ("cpu_sync", "200us", "CPU synchronisation"),
        ("notify_two_nodes", "64us", "notify"),
    ],
)
def test_a_constant_twice_as_long_moves_its_own_term_alone(tmp_path, constant, doubled, term):
    before = run(f"alltoall.calibration={OF_ONE_SOURCE}")
    after = moesim.simulate(scenario(with_constant(tmp_path, constant, doubled)))
    assert moved(before, after, "dispatch_time_s") == {term: pytest.approx(2.0)}
    assert named(before, "combine_time_s") == pytest.approx(named(after, "combine_time_s"))


def test_a_nic_half_as_fast_moves_what_the_nics_hold_alone():
    slow = ("cluster.nic_bandwidth=5GB/s",)
    before, after = run(*RAIL, *slow), run(*RAIL, "cluster.nic_bandwidth=2.5GB/s")
    for key in ("dispatch_time_s", "combine_time_s"):
        assert moved(before, after, key) == {"held by NIC": pytest.approx(2.0, rel=1e-6)}


def test_alpha_and_time_between_layers_move_their_own_terms_alone():
    before, after = run(), run("losses.expert=0.006", "losses.communication=0.04")
    for key in ("expert_loss", "communication_loss"):
        assert moved(before, after, key) == {"alpha": pytest.approx(2.0)}
        assert after.summary[key] == pytest.approx(2 * before.summary[key])
    two = ("workload.layers_simulated=2",)
    before, after = run(*two, "schedule.other_time=10us"), run(*two, "schedule.other_time=20us")
    assert moved(before, after, "step_time_s") == {"between layers": pytest.approx(2.0)}


def test_terms_of_a_phase_are_those_of_the_set_the_topology_and_the_links_table():
    result = run()
    terms = named(result, "dispatch_time_s")
    assert terms["layout"] == pytest.approx(50e-6) and terms["notify"] == pytest.approx(32e-6)
    assert terms["CPU synchronisation"] == pytest.approx(100e-6)
    assert terms["route latency"] == pytest.approx(3.33e-6)  # of hgx-h800's NVLink

    # One node, all enter together: the last flow is held by what is busiest all the while. With the constants over
    # clusters that is the kernel's work on the copies, in the set of H800, which has none, the link.
    def busiest(result):
        links = result.tables["links"].query("phase == 'dispatch'")
        return links.wire_bytes.max() / (200e9 * result.explanation["alltoall"]["dispatch"]["nvlink_efficiency"])

    assert "held by NVLink" not in terms and terms["communication kernel"] > busiest(result)
    result = run(f"alltoall.calibration={OF_ONE_SOURCE}")
    assert named(result, "dispatch_time_s")["held by NVLink"] == pytest.approx(busiest(result))


def test_the_bound_says_where_its_links_and_its_kernels_are_from():
    source = {term["name"]: term["source"] for term in run(*RAIL).explanation["terms"]["lower_bound_s"]}
    assert source == {
        "dispatch link": "topology h800-8x8-rail",
        "routed experts": "kernel roofline",
        "combine link": "topology h800-8x8-rail",
    }


def test_the_slow_link_is_named_where_others_carry_more_bytes():
    slow = "n1.gpu2.nic"
    result = run(*RAIL, f"cluster.overrides=[{{where: {slow}, bandwidth: 5GB/s}}]")
    wire = result.tables["links"].query("link_class == 'nic' and phase == 'combine'").set_index("link").wire_bytes
    held = result.explanation["held_longest"]
    assert "n1.gpu2" in held["link"] and wire.idxmax() != held["link"]
    assert held["capacity_bytes_per_s"] == 5e9 and held["peers_bytes_per_s"] == 50e9
    busiest = {row["link_class"]: row["link"] for row in result.explanation["busiest_links"]["combine"]}
    assert "n1.gpu2" in busiest["nic"]


def test_rates_are_those_of_this_runs_own_ports():
    made = run(*RAIL, "cluster.nic_bandwidth=800Gb/s").explanation["alltoall"]["dispatch"]
    assert made["nic_rates_bytes_per_s"] == [pytest.approx(100e9 * made["nic_efficiency"])]
    slow = run(*RAIL, "cluster.overrides=[{where: n1.gpu2.nic, bandwidth: 5GB/s}]").explanation["alltoall"]["dispatch"]
    assert slow["nic_rates_bytes_per_s"] == pytest.approx([5e9 * made["nic_efficiency"], 50e9 * made["nic_efficiency"]])


def test_numbers_without_terms_are_words_and_counts():
    terms = run().explanation["terms"]
    assert {key for key in SUMMARY if key not in terms and run().summary[key] is not None} == {
        *COUNTS, "name", "bottleneck",
    }  # fmt: skip


def test_a_layer_in_which_nothing_moves_counts_as_no_use_of_the_links():
    """Dealt in turn and placed by that load, no token of one layer leaves its rank; all tokens of the other do."""
    result = moesim.simulate(
        moesim.load_scenario(
            {
                "cluster": {"topology": "h800-4x8-rail"},
                "parallel": {"ep": 4},
                "model": {"preset": "deepseek-v3", "n_experts": 128},
                "routing": {"kind": "v2", "top_k": 1, "groups": 1, "top_groups": 1},
                "placement": {"policy": "greedy"},
                "workload": {
                    "synthetic": {"kind": "sglang-round-robin"},
                    "tokens_per_rank": 995,
                    "layers_simulated": 2,
                },
                "alltoall": {"algorithm": "nccl-pxn"},
            }
        )
    )
    assert result.summary["bottleneck_utilisation"] == pytest.approx(0.5)
