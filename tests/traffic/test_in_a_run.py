"""Algorithms and their terms in a whole run: what the result says of them, and that its flows can be solved again."""

import numpy as np
import pytest

from moesim import load_scenario, simulate
from moesim.errors import InputError
from moesim.network import solve_flows
from tests.traffic.test_hand_computed import EXPERT_IDS, ONE_DOMAIN, SCENARIO, TWO_NODES

# Kernel work, fill, floor and epilogue that are felt: a copy takes tens of ns on the wires.
CONSTANTS = """\
algorithm: {algorithm}
gpu: h800
source: made up
rows: [a/1, a/2, a/3]
error: {{median: 0.031}}
dispatch:
  nvlink_rate: 100GB/s
  nic_rate: 25GB/s
  setup_intra_node: 5us
  setup_inter_node: 6us
  sms: {sms}
{terms}
combine:
  nvlink_rate: 100GB/s
  nic_rate: 25GB/s
  setup_intra_node: 5us
  sms: {sms}
{terms}
"""
TREE = "  node_copy_sm: 2us\n  rank_copy_sm: 1us\n  token: 100ns\n  fill: 3us\n  fill_tokens: 4\n  epilogue_token: 50ns"
PROTOCOLS = (
    "  protocols:\n    - {name: ll, setup_intra_node: 1us, setup_inter_node: 2us, pair_rate: 100MB/s}\n"
    "    - {name: fast, setup_intra_node: 9us, setup_inter_node: 9us}"
)


@pytest.fixture
def run(tmp_path):
    def run(algorithm, terms=TREE, topology=TWO_NODES, more="", sms=8, named="./constants.yaml"):
        np.save(tmp_path / "ids.npy", np.array(EXPERT_IDS, np.int32))
        (tmp_path / "cluster.yaml").write_text(topology)
        (tmp_path / "constants.yaml").write_text(CONSTANTS.format(algorithm=algorithm, terms=terms, sms=sms))
        scenario = SCENARIO.format(algorithm=algorithm).replace("./constants.yaml}", f"{named}{more}}}")
        (tmp_path / "s.yaml").write_text(scenario)
        return simulate(load_scenario(tmp_path / "s.yaml"))

    return run


@pytest.mark.parametrize(
    ("algorithm", "terms", "topology"),
    [
        ("deepep-normal", TREE, TWO_NODES),
        ("nccl-direct", PROTOCOLS, TWO_NODES),
        ("nccl-pxn", "", TWO_NODES),
        ("nvl-one-sided", "  token: 1us\n  floor: 9us", ONE_DOMAIN),
        ("deepep-low-latency", "  receive_sm_rate: 100MB/s\n  setup_expert: 10ns", TWO_NODES),
        ("allgather-reduce-scatter", "", TWO_NODES),
    ],
)
def test_solving_the_exported_flows_again_gives_their_finish_times(run, algorithm, terms, topology):
    flows = dict(run(algorithm, terms, topology).flows)
    finish = flows.pop("finish")
    names = ("capacity", "latency", "route_ptr", "route_links", "size", "start", "weight", "rate_cap")
    again = solve_flows(**{name: flows[name] for name in names if name in flows})
    np.testing.assert_allclose(again, finish, rtol=1e-12)
    # kernels and caps are part of what is exported exactly where there are some
    assert (len(flows["capacity"]) > flows["route_links"].max()) and ("rate_cap" in flows) == (terms == PROTOCOLS)


def test_the_communication_kernel_is_named_where_it_holds_the_run_up(run):
    result = run("deepep-normal", "  node_copy_sm: 800us")
    assert result.summary["bottleneck"].startswith("the communication kernel: ")
    # two tokens of 2 + 1 copies to nodes on 8 SMs, out and back
    assert result.summary["dispatch_kernel_time_s"] == pytest.approx(3 * 100e-6 + 5e-6, rel=0.03)
    assert set(result.tables["links"].link_class) == {
        "nvlink",
        "nic",
        "leaf-spine",
    }  # the kernel is no link of the tables


def test_the_result_says_which_constants_were_used_and_how_good_they_are(run):
    made = run("deepep-normal").explanation["alltoall"]["dispatch"]
    assert (made["calibration"], made["source"], made["fitted_rows"]) == ("constants", "made up", 3)
    assert made["error_left"] == {"median": 0.031}
    assert made["constants"]["node_copy_sm_s"] == pytest.approx(2e-6)
    assert made["constants"]["fill_tokens"] == 4
    said = [note.text for note in run("hybrid-ep").notes if note.text.startswith("all-to-all rates")]
    assert said == ["all-to-all rates are those of your file constants.yaml: made up"]


def test_another_set_changes_the_time_and_nothing_of_the_traffic(run):
    slow, fast = run("deepep-normal"), run("deepep-normal", "")
    # at least the fill of 3 us (1 - exp(-2 / 4)) and the epilogue of two tokens
    assert slow.summary["dispatch_kernel_time_s"] > fast.summary["dispatch_kernel_time_s"] + 1.28e-6
    for name in ("selections_layer0", "node_copies_layer0"):
        assert np.array_equal(slow.traffic[name], fast.traffic[name])


@pytest.mark.parametrize("algorithm", ["nccl-pxn", "deepep-normal", "deepep-v2-direct"])
def test_the_transfers_table_has_a_row_per_pair_that_exchanges_copies(run, algorithm):
    result = run(algorithm, "")
    sent = result.tables["transfers"]
    sent = sent[sent.phase == "dispatch"].sort_values(["source_rank", "target_rank"])
    counted = result.traffic["selections_layer0" if algorithm == "nccl-pxn" else "rank_copies_layer0"]
    source, target = np.nonzero(counted * ~np.eye(4, dtype=bool))
    assert sent.source_rank.tolist() == source.tolist()
    assert sent.target_rank.tolist() == target.tolist()
    assert sent.copies.tolist() == counted[source, target].tolist()


def test_all_gather_sends_every_token_to_everybody(run):
    sent = run("allgather-reduce-scatter", "").tables["transfers"]
    for phase in ("dispatch", "combine"):
        assert sent[sent.phase == phase].copies.tolist() == [2] * 12


def test_without_the_receive_hook_low_latency_keeps_its_sms(run):
    """8 experts fit on 8 SMs of 132, one on each."""
    held = [
        run("deepep-low-latency", "", more=more, sms=0).explanation["alltoall"]["dispatch"]["sms"]
        for more in ("", ", receive_hook: false", ", receive_hook: false, sms: 20")
    ]
    assert held == [0, 8, 20]
    with pytest.raises(InputError, match=r"alltoall.receive_hook: nccl-direct has no receive hook"):
        run("nccl-direct", "", more=", receive_hook: false")


def test_a_kernel_on_more_sms_than_the_gpu_has_is_refused(run):
    assert run("deepep-normal", "", more=", sms: 132").summary["layer_time_s"] > 0
    with pytest.raises(InputError, match=r"alltoall.sms: .* holds 133 SMs but h800 has 132; use at most 132"):
        run("deepep-normal", "", more=", sms: 133")


def test_a_scenario_with_an_unknown_set_is_refused_at_its_place(run):
    with pytest.raises(
        InputError, match=r"s.yaml:5:\d+: alltoall.calibration: no calibration 'deepep-normal-h10'.*h100"
    ):
        run("deepep-normal", "", named="deepep-normal-h10")
