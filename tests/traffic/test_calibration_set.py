"""Sets as values: other ports, other cells, and how far their constants deviate."""

from dataclasses import replace
from pathlib import Path

import pytest

from moesim.errors import InputError
from moesim.traffic import find_set, gpu_steps, value_at, with_value
from moesim.traffic.calibration_set import UNSEEN, CalibrationSet, Step, Uncertain
from moesim.traffic.constant_sets import calibration, read_set
from moesim.traffic.spread import BORROWED

NIC = (("dispatch", "nic_rate"), ("combine", "nic_rate"))
SETUP = (("dispatch", "setup_inter_node_s"),)


def over_clusters() -> CalibrationSet:
    base = find_set("deepep-low-latency", "h100", "deepep-low-latency-h100")
    nic = Uncertain(NIC, "nic", 0.1, {}, {"proxy": Step(0.5, 0.2)}, ("transport",))
    setup = Uncertain(SETUP, "setup", 0.3, {"b200": Step(1.5, 0.4)}, {"proxy": Step(2.0, 0.5)}, ("gpu", "transport"))
    return replace(base, uncertain=(nic, setup), clusters={"a": 3, "b": 2}, row_spread=0.05)


def test_the_reference_cell_is_the_set_itself() -> None:
    made = over_clusters()
    here = made.on("h200", ("h100",), ("ibgda",), 132)
    assert here.phases == made.phases
    assert [one.deviation for one in here.uncertain] == [0.1, 0.3]
    assert here.gpu == "h200"


def test_steps_of_gpu_and_transport_multiply_and_the_larger_deviation_counts() -> None:
    made = over_clusters()
    there = made.on("gb200", ("b200",), ("proxy",), 152)
    for place in NIC:
        assert value_at(there, place) == pytest.approx(0.5 * value_at(made, place))
    assert value_at(there, SETUP[0]) == pytest.approx(3.0 * value_at(made, SETUP[0]))
    assert value_at(there, ("combine", "setup_inter_node_s")) == value_at(made, ("combine", "setup_inter_node_s"))
    assert [one.deviation for one in there.uncertain] == [0.2, 0.5]
    assert there.sms == 152


def test_a_gpu_takes_the_step_of_the_one_that_it_descends_from_before_its_own() -> None:
    made = over_clusters()
    there = made.on("b300", gpu_steps("b300"), ("ibgda",), 148)
    assert gpu_steps("gb300") == ("b200", "b300")
    assert value_at(there, SETUP[0]) == pytest.approx(1.5 * value_at(made, SETUP[0]))


def test_a_step_that_no_cluster_had_keeps_the_constant_and_is_less_sure() -> None:
    made = over_clusters()
    there = made.on("h20", ("h20",), ("efa-proxy",), 78)
    assert value_at(there, NIC[0]) == value_at(made, NIC[0])
    assert value_at(there, SETUP[0]) == value_at(made, SETUP[0])
    assert there.uncertain[0].deviation == pytest.approx((0.1**2 + UNSEEN["transport"] ** 2) ** 0.5)


def test_rates_keep_their_share_of_other_ports_and_nothing_else_moves() -> None:
    made = find_set("deepep-normal", "h100", "deepep-normal-h100")
    there = made.with_ports(2 * made.nvlink_peak, made.nic_peak / 4)
    for phase in ("dispatch", "combine"):
        for block, before in ((there.phases, made.phases), (there.across, made.across)):
            assert block[phase]["nvlink_rate"] == pytest.approx(2 * before[phase]["nvlink_rate"])
            assert block[phase]["nic_rate"] == pytest.approx(before[phase]["nic_rate"] / 4)
            assert block[phase]["setup_inter_node_s"] == before[phase]["setup_inter_node_s"]
    protocols = (
        find_set("nccl-direct", "h100", "nccl-direct-h100").with_ports(900e9, 100e9).phases["dispatch"]["protocols"]
    )
    assert [one.nvlink_rate for one in protocols] == pytest.approx([0.0, 2 * 238.66e9, 2 * 327.52e9])


def test_a_rate_cannot_pass_its_port() -> None:
    made = over_clusters()
    assert value_at(with_value(made, NIC[0], 1e12), NIC[0]) == made.nic_peak
    assert value_at(with_value(made, SETUP[0], 5.0), SETUP[0]) == 5.0


def test_deviations_of_a_phase_are_those_of_its_kinds() -> None:
    made = over_clusters()
    assert made.deviations_of(("dispatch",)) == {"nic": 0.1, "setup": 0.3}
    assert made.deviations_of(("combine",)) == {"nic": 0.1}
    assert made.deviations_of(("across", "dispatch")) == {}


def test_a_set_of_one_source_borrows_its_spread() -> None:
    made = find_set("deepep-low-latency", "h100", "deepep-low-latency-h100").spread
    kinds = {place: one.kind for one in made.uncertain for place in one.places}
    assert kinds[("dispatch", "nic_rate")] == "nic"
    assert kinds[("combine", "nvlink_rate")] == "nvlink"
    assert kinds[("dispatch", "setup_node_doubling_s")] == "setup"
    assert {one.deviation for one in made.uncertain if one.kind == "setup"} == {BORROWED["setup"]}
    assert over_clusters().spread.uncertain == over_clusters().uncertain


def test_the_defaults_over_clusters_carry_their_spread_to_a_run() -> None:
    here, proxy = (calibration("deepep-low-latency", "h100", transport=name) for name in ("ibgda", "efa-proxy"))
    assert here.clusters == proxy.clusters > 5
    # A message of one token waits for the CPU; the port, once it has messages, is the same.
    assert proxy.setup_inter_node_s > 5 * here.setup_inter_node_s
    assert proxy.setup_intra_node_s == here.setup_intra_node_s
    assert proxy.nic_rate == pytest.approx(here.nic_rate, rel=0.1)
    assert dict(proxy.deviations)["nic"] >= dict(here.deviations)["nic"] > 0
    assert calibration("deepep-low-latency", "h100", source="deepep-low-latency-h100").clusters == 0


def test_a_rate_of_another_gpu_is_its_ports() -> None:
    h800, h100 = (calibration("deepep-normal", gpu) for gpu in ("h800", "h100"))
    assert (h800.nvlink_peak, h100.nvlink_peak) == (200e9, 450e9)
    assert h800.nvlink_rate / h800.nvlink_peak == pytest.approx(h100.nvlink_rate / h100.nvlink_peak, rel=0.2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{of: [dispatch.speed], kind: nic, deviation: 0.1}", "no constant 'dispatch.speed'"),
        ("{of: [dispatch.nic_rate], kind: wire, deviation: 0.1}", "uncertain[0].kind"),
        ("{of: [dispatch.nic_rate], kind: nic, deviation: -1}", "uncertain[0].deviation"),
    ],
)
def test_mistakes_in_a_file_name_their_place(tmp_path: Path, line: str, said: str) -> None:
    text = (
        "algorithm: deepep-low-latency\ngpu: h100\nsource: mine\n"
        f"uncertain:\n  - {line}\n"
        "dispatch: {nvlink_rate: 200GB/s, nic_rate: 40GB/s}\ncombine: {nvlink_rate: 200GB/s, nic_rate: 40GB/s}\n"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_set(path)
    assert said in str(caught.value)
    assert f"{path}:5:" in str(caught.value)
