"""Intervals of times: closed forms of one pair of ranks, and runs again with other constants, by the user's own way."""

import math

import numpy as np
import pytest
from ruamel.yaml import YAML

import moesim
from moesim.layer import build_parts
from moesim.measure import spreads
from moesim.results.explain import explain_lines
from moesim.stages import PHASES
from moesim.traffic.constant_sets import DATA
from moesim.traffic.spread import BORROWED, BORROWED_ROW_SPREAD
from tests.run.small import run_ids

# Fits and runs of many layers.
pytestmark = pytest.mark.jit

Z = 1.2815515655446004  # a tenth of a normal distribution lies above
US, GB = 1e-6, 1e9
PAIR = """\
algorithm: nccl-direct
gpu: h800
source: "made up"
clusters: {{one: 3, other: 4}}
row_spread: 0.02
widen: 1.1
uncertain:
  - {{of: [dispatch.nvlink_rate, combine.nvlink_rate], kind: nvlink, deviation: 0.2}}
  - {{of: [dispatch.setup_intra_node], kind: setup, deviation: 0.5}}
  - {{of: [combine.setup_intra_node], kind: setup, deviation: 0.4}}
dispatch: {{nvlink_rate: {rate}GB/s, nic_rate: 40GB/s, setup_intra_node: 20us}}
combine: {{nvlink_rate: 50GB/s, nic_rate: 40GB/s, setup_intra_node: 10us}}
"""


def pair(folder, rate=100.0, tokens=4096):
    """Two ranks: the tokens of rank 0 go to an expert of rank 1, those of rank 1 stay where they are."""
    (folder / "pair.yaml").write_text(PAIR.format(rate=rate))
    ids = np.full((2 * tokens, 1), 31)
    overrides = ("parallel.ep=2", f"alltoall={{algorithm: nccl-direct, calibration: {folder / 'pair.yaml'}}}")
    result = run_ids(folder, ids, [tokens, tokens], *overrides)
    made = result.explanation["alltoall"]
    return result, {phase: made[phase]["wire_bytes_per_copy"] * tokens for phase in PHASES}


def ends(value, *unknowns):
    """The interval of a time: by unknown, shares of the time and the deviation of each, or two, faster and slower."""
    squares = [0.0, 0.0]
    for unknown in unknowns:
        for end, sign in enumerate((-1, 1)):
            change = sum(
                share * math.expm1(sign * Z * 1.1 * np.broadcast_to(deviation, 2)[end]) for share, deviation in unknown
            )
            squares[end] += math.log1p(change / value) ** 2
    low, high = map(math.sqrt, squares)
    return pytest.approx((value * math.exp(-low), value * math.exp(high)), rel=1e-6)


def test_set_up_and_bytes_of_one_pair_give_its_interval(tmp_path):
    result, moved = pair(tmp_path)
    out_s, back_s = moved["dispatch"] / (100 * GB), moved["combine"] / (50 * GB)
    took, back = 20 * US + out_s, 10 * US + back_s
    assert result.summary["dispatch_time_s"] == pytest.approx(took)
    assert result.summary["combine_time_s"] == pytest.approx(back)
    found = result.intervals
    assert found["dispatch_time_s"] == ends(took, [(20 * US, 0.5)], [(out_s, 0.2)], [(took, 0.02)])
    assert found["combine_time_s"] == ends(back, [(10 * US, 0.4)], [(back_s, 0.2)], [(back, 0.02)])
    # One cluster's set-up is slow out and back alike; what rows leave is another number in each.
    layer = result.summary["layer_time_s"]
    together = ([(20 * US, 0.5), (10 * US, 0.4)], [(out_s + back_s, 0.2)], [(took, 0.02)], [(back, 0.02)])
    assert found["layer_time_s"] == ends(layer, *together)
    assert "spread between 2 clusters" in "".join(note.text for note in result.notes)


def test_a_port_is_not_faster_than_its_peak(tmp_path):
    result, moved = pair(tmp_path, rate=190.0)
    out_s = moved["dispatch"] / (190 * GB)
    took = 20 * US + out_s
    room = math.log(200 / 190) / (Z * 1.1)
    assert result.intervals["dispatch_time_s"] == ends(took, [(20 * US, 0.5)], [(out_s, (room, 0.2))], [(took, 0.02)])


TWO_LEAVES = """\
kind: leaf-spine
gpu: h800
nodes: 2
gpus_per_node: 1
nvlink: {{bandwidth: 200GB/s}}
nic: {{bandwidth: 50GB/s, latency: 1us}}
leaf_spine: {{spines: 1, latency: 1us}}
{fabric}
"""


def over_spines(folder, fabric):
    """A pair of ranks whose way leads over a spine, at a share of 0.8 of its links."""
    (folder / "leaves.yaml").write_text(TWO_LEAVES.format(fabric=fabric))
    constants = PAIR.format(rate=100.0).replace("dispatch.nvlink_rate, combine.nvlink_rate", "dispatch.nic_rate")
    (folder / "pair.yaml").write_text(constants.replace("kind: nvlink", "kind: nic").replace("intra", "inter"))
    overrides = (f"cluster.topology={folder / 'leaves.yaml'}", "parallel.ep=2")
    calibration = f"alltoall={{algorithm: nccl-direct, calibration: {folder / 'pair.yaml'}}}"
    result = run_ids(folder, np.full((8192, 1), 31), [4096, 4096], *overrides, calibration)
    return result, result.explanation["alltoall"]["dispatch"]["wire_bytes_per_copy"] * 4096 / (40 * GB)


def test_packets_that_hold_others_back_widen_the_slow_side_alone(tmp_path):
    result, out_s = over_spines(tmp_path, "routing: hash")
    took, slower = 20 * US + out_s, math.log(1.2) / (Z * 1.1)
    assert result.summary["dispatch_time_s"] == pytest.approx(took)
    room = math.log(50 / 40) / (Z * 1.1)
    assert result.intervals["dispatch_time_s"] == ends(
        took, [(20 * US, 0.5)], [(out_s, (min(room, 0.2), 0.2))], [(took, 0.02)], [(out_s, (0.0, slower))]
    )
    assert "hashed RoCE: packets may take up to 1.2 times as long" in "".join(note.text for note in result.notes)


def test_queues_at_spines_are_a_term_of_the_time_and_of_its_interval(tmp_path):
    result, out_s = over_spines(tmp_path, "routing: spray")
    took = 20 * US + out_s + 3 * US
    assert result.summary["dispatch_time_s"] == pytest.approx(took)
    terms = {term["name"]: term["value"] for term in result.explanation["terms"]["dispatch_time_s"]}
    assert terms["queues at spines"] == pytest.approx(3 * US)
    assert sum(terms.values()) == pytest.approx(took, rel=1e-9)
    held_by = result.explanation["held_by_s"]
    assert held_by["link latency"] >= 2 * 3 * US and held_by.get("link kernel", 0.0) < 1e-12
    room, sigma = math.log(50 / 40) / (Z * 1.1), Z * 1.1
    assert result.intervals["dispatch_time_s"] == ends(
        took,
        [(20 * US, 0.5)],
        [(out_s, (min(room, 0.2), 0.2))],
        [(took, 0.02)],
        [(out_s, (0.0, math.log(1.16) / sigma))],
        [(3 * US, (math.log(3 / 2.2) / sigma, math.log(4.1 / 3) / sigma))],
    )
    # Packets of another fabric are another unknown: they do not cancel between two runs.
    roce, _ = over_spines(tmp_path, "routing: spray\nfabric: roce")
    band = result.explanation["band"], roce.explanation["band"]
    assert band[0]["cell"] == band[1]["cell"]
    assert set(band[0]["moves"]["layer_time_s"]) ^ set(band[1]["moves"]["layer_time_s"]) == {
        "packets over sprayed InfiniBand",
        "packets over sprayed RoCE",
    }


TERMS = {
    "nvlink": ("nvlink_rate",),
    "nic": ("nic_rate",),
    "setup": ("setup_intra_node", "setup_inter_node"),
    "host": ("layout", "notify_two_nodes", "notify_four_nodes", "cpu_sync"),
}
PEAKS = {"nvlink_rate": 200.0, "nic_rate": 50.0}


def slower(block, kind, factor):
    """A set's block with the constants of a kind so much slower: rates down to their peak at most, times up."""
    changed = {}
    for name, value in block.items():
        if isinstance(value, dict):
            changed[name] = slower(value, kind, factor)
        elif name in TERMS[kind]:
            number = float(value.removesuffix("GB/s").removesuffix("us"))
            rate = name in PEAKS
            changed[name] = f"{min(number / factor, PEAKS[name])!r}GB/s" if rate else f"{number * factor!r}us"
        else:
            changed[name] = value
    return changed


def again(folder, name, constants):
    YAML(typ="safe").dump(constants, folder / "moved.yaml")
    return moesim.simulate(moesim.load_scenario(name, [f"alltoall.calibration={folder / 'moved.yaml'}"]))


@pytest.mark.parametrize(
    ("name", "set_name"),
    [
        ("quickstart", "deepep-normal-h800"),
        ("document-v3", "deepep-normal-h800"),
        ("deepseek-v3-prefill-ep64", "deepep-normal-h800"),
        pytest.param("deepseek-v3-decode-ep128", "deepep-low-latency-h800", marks=pytest.mark.slow),
    ],
)
def test_first_order_is_within_a_tenth_of_runs_with_other_constants(tmp_path, name, set_name):
    plain = moesim.simulate(moesim.load_scenario(name, [f"alltoall.calibration={set_name}"]))
    shipped = YAML(typ="safe").load(DATA / f"{set_name}.yaml")
    keys = ("layer_time_s", "dispatch_time_s", "combine_time_s")
    square = {(key, end): 0.0 for key in keys for end in (0, 1)}
    for kind in TERMS:  # these sets have neither kernel work nor fill
        for end, sign in enumerate((-1, 1)):
            moved = again(tmp_path, name, slower(shipped, kind, math.exp(sign * Z * BORROWED[kind])))
            for key in keys:
                square[key, end] += math.log(moved.summary[key] / plain.summary[key]) ** 2
    for key in keys:
        left = [plain.summary[one] for one in keys[1:] if key in (one, keys[0])]
        beyond = (Z * BORROWED_ROW_SPREAD * math.hypot(*left) / plain.summary[key]) ** 2
        low, high = (math.sqrt(square[key, end] + beyond) for end in (0, 1))
        width = plain.summary[key] * (math.exp(high) - math.exp(-low))
        first_order = plain.intervals[key]
        assert first_order[1] - first_order[0] == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize("name", ["quickstart", "document-v3", "deepseek-v3-prefill-ep64"])
def test_first_order_is_within_a_tenth_of_exact_for_a_set_over_clusters_which_differ_by_more(name):
    scenario = moesim.load_scenario(name)
    assert build_parts(scenario).constants["dispatch"].clusters > 1
    first_order, exact = (moesim.simulate(scenario, exact_bands=exact) for exact in (False, True))
    for key, (low, high) in exact.intervals.items():
        one = first_order.intervals[key]
        assert one[1] - one[0] == pytest.approx(high - low, rel=0.1)
        for end, near in zip((low, high), one, strict=True):
            assert near == pytest.approx(end, abs=0.1 * (high - low))


def test_moving_constants_again_gives_what_runs_with_other_constants_give(tmp_path):
    scenario = moesim.load_scenario("quickstart", ["alltoall.calibration=deepep-normal-h800"])
    exact = moesim.simulate(scenario, exact_bands=True)
    assert set(exact.explanation["band"]["resimulated"]) == set(BORROWED)
    shipped = YAML(typ="safe").load(DATA / "deepep-normal-h800.yaml")
    for kind in ("nvlink", "host"):
        for end, sign in enumerate((-1, 1)):
            moved = again(tmp_path, "quickstart", slower(shipped, kind, math.exp(sign * Z * BORROWED[kind])))
            change = math.log(moved.summary["layer_time_s"] / exact.summary["layer_time_s"]) / Z
            assert exact.explanation["band"]["moves"]["layer_time_s"][kind][end] == pytest.approx(change, rel=1e-6)
    plain = moesim.simulate(scenario)
    assert exact.summary == plain.summary
    assert exact.intervals["layer_time_s"] != plain.intervals["layer_time_s"]


BOTH_BUSY = """\
algorithm: deepep-normal
gpu: h800
source: "made up"
uncertain:
  - {{of: [dispatch.nvlink_rate, combine.nvlink_rate], kind: nvlink, deviation: 0.1}}
  - {{of: [dispatch.nic_rate, combine.nic_rate], kind: nic, deviation: 0.1}}
dispatch: {{nvlink_rate: {nvlink}GB/s, nic_rate: 40GB/s}}
combine: {{nvlink_rate: {nvlink}GB/s, nic_rate: 40GB/s}}
"""


def two_nodes(folder, nvlink):
    """Every token of two nodes goes to the GPU of its own rail on the other node and on to all its GPUs."""
    (folder / "busy.yaml").write_text(BOTH_BUSY.format(nvlink=nvlink))
    tokens, ranks = 512, 16
    rank = np.repeat(np.arange(ranks), tokens)
    other = 8 * (1 - rank // 8)
    ids = 2 * (other + rank % 8)[:, None] + [0, 1]
    ids[:, 1] = 2 * (other + (rank + 1 + np.arange(len(rank)) % 7) % 8)
    overrides = ("cluster.topology=h800-8x8-rail", "parallel.ep=16", f"alltoall.calibration={folder / 'busy.yaml'}")
    return run_ids(folder, ids, [tokens] * ranks, *overrides)


def test_where_another_link_may_be_the_busiest_the_run_is_simulated_again(tmp_path):
    # A copy crosses a NIC once and NVLink, for its second GPU, nearly as often.
    clear = two_nodes(tmp_path, 150.0)
    assert clear.explanation["band"]["resimulated"] == []
    close = two_nodes(tmp_path, 40.0)
    assert close.explanation["band"]["resimulated"] == ["nic", "nvlink"]
    fast, slow = close.explanation["band"]["moves"]["dispatch_time_s"]["nic"]
    # Where the NICs are faster NVLink holds as before; first order would promise all of a tenth either way.
    assert slow > 0.05 and -fast < 0.7 * slow


def test_phases_too_large_to_simulate_again_say_that_the_busiest_link_is_open(tmp_path, monkeypatch):
    monkeypatch.setattr("moesim.measure.notes.STEPS_PAY", 10)
    close = two_nodes(tmp_path, 40.0)
    band = close.explanation["band"]
    assert (band["resimulated"], band["contended"]) == ([], ["nic", "nvlink"])
    text = "\n".join(explain_lines(close, "dispatch_time_s"))
    assert "which of NIC rates and NVLink rates holds it may differ there: run with --band exact" in text


def test_explain_lists_what_widens_a_time_most_first(tmp_path):
    result, moved = pair(tmp_path)
    took = 20 * US + moved["dispatch"] / (100 * GB)
    value, _, source, moves, *_ = explain_lines(result, "dispatch_time_s")
    low, high = (1e6 * end for end in result.intervals["dispatch_time_s"])
    assert value == f"dispatch_time_s = {1e6 * took:.4g} us ({low:.4g} to {high:.4g})"
    assert source.endswith("spread between 2 clusters")
    by_kind = {}
    for what, seconds, deviation in (("set-up times", 20 * US, 0.5), ("NVLink rates", took - 20 * US, 0.2)):
        # At the end of the interval, per standard deviation on the way there.
        fast, slow = (
            math.log1p(seconds * math.expm1(far * deviation) / took) / abs(far) for far in (-Z * 1.1, Z * 1.1)
        )
        by_kind[f"{what} {100 * fast:+.1f} / {100 * slow:+.1f} %"] = slow
    listed = ", ".join(sorted(by_kind, key=lambda text: -by_kind[text]))
    assert moves == f"  one standard deviation faster / slower: {listed}, left in dispatch -2.0 / +2.0 %"


def test_an_own_cluster_leaves_less(tmp_path):
    shipped = (DATA / "deepep-normal-h800.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(shipped)
    borrowed = moesim.simulate(moesim.load_scenario("quickstart", ["alltoall.calibration=deepep-normal-h800"]))
    mine = moesim.simulate(moesim.load_scenario("quickstart", [f"alltoall.calibration={tmp_path / 'mine.yaml'}"]))
    assert mine.summary["dispatch_time_s"] == borrowed.summary["dispatch_time_s"]
    took = mine.summary["dispatch_time_s"]
    left = math.exp(Z * BORROWED_ROW_SPREAD)
    assert mine.intervals["dispatch_time_s"] == pytest.approx((took / left, took * left))
    assert borrowed.intervals["dispatch_time_s"][1] > 1.1 * mine.intervals["dispatch_time_s"][1]


def test_a_layer_whose_shared_expert_outlasts_dispatch_does_not_depend_on_it():
    hidden = moesim.simulate(moesim.load_scenario("quickstart", ["model.n_shared=40"]))
    moves = hidden.explanation["band"]["moves"]
    assert {"host", "left in dispatch"} <= set(moves["dispatch_time_s"])
    assert not {"host", "left in dispatch"} & set(moves["layer_time_s"])
    # Set-up of combine is as unknown as ever; that of dispatch adds nothing.
    share = hidden.summary["combine_time_s"] / hidden.summary["layer_time_s"]
    assert moves["layer_time_s"]["setup"][1] < 1.1 * share * moves["combine_time_s"]["setup"][1]


def test_the_spread_is_the_set_s_own_where_it_has_one(tmp_path):
    (tmp_path / "pair.yaml").write_text(PAIR.format(rate=100.0))
    scenario = moesim.load_scenario(
        "quickstart", [f"alltoall={{algorithm: nccl-direct, calibration: {tmp_path / 'pair.yaml'}}}"]
    )
    found = spreads(build_parts(scenario))
    assert found["dispatch"].deviations == dict(BORROWED) | {"nvlink": 0.2, "setup": 0.5}
    assert found["combine"].deviations == dict(BORROWED) | {"nvlink": 0.2, "setup": 0.4}
    assert (found["combine"].row_spread, found["combine"].widen) == (0.02, 1.1)
