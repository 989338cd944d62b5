import pytest

from moesim.errors import InputError
from moesim.scenario import SUMMARY_KEYS, load_scenario, parse_threshold


@pytest.mark.parametrize(
    ("text", "key", "sign", "limit"),
    [
        ("layer_time_s < 2ms", "layer_time_s", "<", 2e-3),
        ("layer_time_s<=2 ms", "layer_time_s", "<=", 2e-3),
        ("rank_load_max_over_mean < 1.3", "rank_load_max_over_mean", "<", 1.3),
        ("dispatch_algbw_bytes_per_s >= 40GB/s", "dispatch_algbw_bytes_per_s", ">=", 40e9),
        ("nic_wire_bytes < 20MB", "nic_wire_bytes", "<", 20e6),
        ("gate_mass_lost < 5%", "gate_mass_lost", "<", 0.05),
        ("expert_loss < 1e-2", "expert_loss", "<", 0.01),
    ],
)
def test_the_unit_of_a_limit_follows_from_the_number_it_limits(text, key, sign, limit):
    threshold = parse_threshold(text)
    assert (threshold.key, threshold.operator) == (key, sign)
    assert threshold.limit == pytest.approx(limit, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("layer_time_s < 2", "has no unit"),
        ("rank_load_max_over_mean < 2ms", "is not a limit for rank_load_max_over_mean"),
        ("layer_time < 2ms", "did you mean 'layer_time_s'"),
        ("bottleneck < 2", "no number 'bottleneck'"),
        ("layer_time_s = 2ms", "is not a threshold"),
        ("layer_time_s <", "is not a threshold"),
        (3, "3 is not a threshold"),
    ],
)
def test_a_threshold_that_cannot_be_read_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        parse_threshold(text)


def test_a_threshold_holds_or_is_missed():
    limit = parse_threshold("layer_time_s < 2ms")
    assert limit.holds({"layer_time_s": 1.9e-3})
    assert not limit.holds({"layer_time_s": 2e-3})
    assert parse_threshold("layer_time_s <= 2ms").holds({"layer_time_s": 2e-3})
    assert parse_threshold("ranks >= 8").holds({"ranks": 8})
    assert not parse_threshold("ranks > 8").holds({"ranks": 8})


@pytest.mark.parametrize("summary", [{"node_copies_per_token": None}, {}])
def test_a_number_that_does_not_apply_keeps_no_threshold(summary):
    assert not parse_threshold("node_copies_per_token < 9").holds(summary)


def test_every_key_of_a_summary_is_named_once():
    assert len(set(SUMMARY_KEYS)) == len(SUMMARY_KEYS)


def test_a_scenario_gives_its_thresholds_parsed():
    data = {"cluster": {"topology": "hgx-h800"}, "thresholds": ["layer_time_s < 2ms", "ranks >= 8"]}
    assert [limit.limit for limit in load_scenario(data).limits()] == [2e-3, 8]
