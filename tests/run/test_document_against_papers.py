"""What docs/document.md says of the 13 differences, by the numbers of the scenarios that it runs."""

import pytest

from moesim import load_scenario, simulate
from moesim.model import load_model

pytestmark = pytest.mark.jit


@pytest.fixture(scope="module")
def found():
    summaries = {}
    for version in ("v1", "v2", "v3"):
        variants = load_scenario(f"document-against-paper-{version}").variant_scenarios()
        summaries |= {f"{version} {name}": dict(simulate(one).summary, name="") for name, one in variants.items()}
    return summaries


def ratio(found, name, variant, paper):
    return found[variant][name] / found[paper][name]


def test_the_losses_as_printed_are_smaller_by_n_r_and_by_d_and_nothing_else_differs(found):
    for version, experts, devices in (("v1", 64, 8), ("v2", 160, 8)):
        printed, paper = found[f"{version} losses-as-printed"], found[f"{version} paper"]
        assert printed["expert_loss"] * experts == pytest.approx(paper["expert_loss"])
        assert printed["communication_loss"] * devices == pytest.approx(paper["communication_loss"])
        assert {name for name, value in printed.items() if paper[name] != value} == {
            "expert_loss",
            "communication_loss",
        }


def test_fewer_experts_per_token_send_less_and_more_of_them_hardly_more_under_a_device_limit(found):
    assert ratio(found, "copies_per_token", "v1 top-4", "v1 paper") == pytest.approx(4 / 6)
    assert ratio(found, "nvlink_wire_bytes", "v1 top-4", "v1 paper") == pytest.approx(0.74, abs=0.02)
    assert ratio(found, "max_violation", "v1 top-4", "v1 paper") > 1.3
    assert ratio(found, "nvlink_wire_bytes", "v2 top-10", "v2 paper") < 1.03
    assert ratio(found, "expert_compute_time_s", "v2 top-10", "v2 paper") == pytest.approx(1.5, abs=0.1)
    assert ratio(found, "gate_mass_lost", "v2 top-10", "v2 paper") > 2


def test_a_sum_as_the_score_of_a_device_loses_more_and_is_less_even(found):
    for name in ("gate_mass_lost", "max_violation", "rank_load_max_over_mean", "rank_wait_mean_s"):
        assert ratio(found, name, "v2 device-score-sum", "v2 paper") > 1, name


def test_the_limits_are_what_keeps_bytes_down(found):
    assert found["v2 paper"]["rank_copies_per_token"] <= 3 < 4 < found["v2 no-device-limit"]["rank_copies_per_token"]
    assert found["v3 paper"]["node_copies_per_token"] <= 4 < 5 < found["v3 no-node-limit"]["node_copies_per_token"]
    assert ratio(found, "nic_wire_bytes", "v3 no-node-limit", "v3 paper") == pytest.approx(1.3, abs=0.02)
    assert ratio(found, "layer_time_s", "v3 no-node-limit", "v3 paper") == pytest.approx(1.25, abs=0.05)


def test_the_expert_loss_over_each_sequence_is_more_than_over_the_batch(found):
    window, paper = found["v2 window-sequence"], found["v2 paper"]
    assert window["sequence_loss"] / paper["expert_loss"] == pytest.approx(1.4, abs=0.05)


def test_without_the_bias_v3_is_as_uneven_as_unbalanced_and_without_its_loss_nothing_moves(found):
    assert found["v3 top-k-of-s"]["max_violation"] > 20 * found["v3 paper"]["max_violation"]
    assert ratio(found, "layer_time_s", "v3 top-k-of-s", "v3 paper") == pytest.approx(1.87, abs=0.1)
    without, paper = found["v3 no-sequence-loss"], found["v3 paper"]
    assert {name for name, value in without.items() if paper[name] != value} == {"sequence_loss"}


def test_258_experts_differ_by_less_than_a_percent(found):
    for name in ("layer_time_s", "max_violation", "nic_wire_bytes"):
        assert ratio(found, name, "v3 258-experts", "v3 paper") == pytest.approx(1, abs=0.01), name


def test_the_cache_fell_with_v2():
    per_token = {
        name: load_model(name).kv_cache_bytes_per_token() for name in ("deepseek-v1", "deepseek-v2", "deepseek-v3")
    }
    assert per_token == {"deepseek-v1": 229_376, "deepseek-v2": 69_120, "deepseek-v3": 70_272}
