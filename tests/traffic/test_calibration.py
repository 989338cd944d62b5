"""The constants of the all-to-all libraries: written down here a second time, from the tables they were taken from."""

import pytest

from moesim.errors import InputError
from moesim.traffic.calibration import ALGORITHMS, calibration

US, GB = 1e-6, 1e9
NORMAL, LOW_LATENCY, NCCL = "deepep-normal", "deepep-low-latency", "nccl-direct"


@pytest.mark.parametrize(
    ("algorithm", "gpu", "nvlink", "nic", "inside_us", "across_us"),
    [
        (NORMAL, "h800", 128, 43, 0, 0),
        (LOW_LATENCY, "h800", 135, 42, 24, 24),
        (NCCL, "h800", 160, 48, 24, 100),
        *[(NORMAL, gpu, 290, 45, 0, 0) for gpu in ("h100", "h200", "h20")],
        *[(LOW_LATENCY, gpu, 290, 45, 24, 24) for gpu in ("h100", "h200", "h20")],
        *[(NCCL, gpu, 370, 48, 24, 100) for gpu in ("h100", "h200", "h20")],
    ],
)
def test_rates_and_set_up_times_are_those_of_the_published_tables(algorithm, gpu, nvlink, nic, inside_us, across_us):
    constants = calibration(algorithm, gpu)
    assert (constants.nvlink_rate, constants.nic_rate) == (nvlink * GB, nic * GB)
    assert constants.setup_intra_node_s == pytest.approx(inside_us * US, rel=1e-12)
    assert constants.setup_inter_node_s == pytest.approx(across_us * US, rel=1e-12)


@pytest.mark.parametrize(
    ("gpu", "nvlink", "sms"), [("h800", 200, 132), ("h100", 450, 132), ("h200", 450, 132), ("h20", 450, 78)]
)
def test_efficiency_is_the_rate_over_the_port_of_the_data_sheet(gpu, nvlink, sms):
    for algorithm in ALGORITHMS:
        constants = calibration(algorithm, gpu)
        assert constants.efficiency("nvlink") == constants.nvlink_rate / (nvlink * GB)
        # whatever else the NIC's transport crosses keeps up with it
        for link_class in ("nic", "leaf-spine", "long-haul"):
            assert constants.efficiency(link_class) == constants.nic_rate / (50 * GB)
        assert 0 < constants.efficiency("nvlink") <= 1
        assert 0 < constants.efficiency("nic") <= 1
        assert constants.total_sms == sms


def test_a_rate_published_for_logical_bytes_is_kept_for_those_on_the_wire():
    constants = calibration(NORMAL, "h800", wire_over_published=7472 / 7392)
    # as many token copies a second either way
    assert constants.nic_rate / 7472 == pytest.approx(43 * GB / 7392, rel=1e-15)
    assert constants.nvlink_rate / 7472 == pytest.approx(128 * GB / 7392, rel=1e-15)
    # the others' published rates are of wire bytes
    assert calibration(LOW_LATENCY, "h800", wire_over_published=1.5).nic_rate == 42 * GB
    assert calibration(NCCL, "h800", wire_over_published=1.5).nvlink_rate == 160 * GB


def test_only_normal_mode_has_a_layout_kernel_an_exchange_of_counts_and_a_cpu_that_waits():
    constants = calibration(NORMAL, "h800")
    assert constants.layout_s == pytest.approx(50 * US, rel=1e-12)
    assert constants.cpu_sync_s == pytest.approx(100 * US, rel=1e-12)
    for algorithm in (LOW_LATENCY, NCCL):
        others = calibration(algorithm, "h800")
        assert (others.layout_s, others.cpu_sync_s, others.notify_s(8)) == (0, 0, 0)


@pytest.mark.parametrize(("nodes", "us"), [(2, 32), (4, 55), (5, 55), (8, 55), (128, 55)])
def test_notify_takes_32_us_at_two_nodes_and_55_from_four_on(nodes, us):
    assert calibration(NORMAL, "h800").notify_s(nodes) == pytest.approx(us * US, rel=1e-12)


def test_notify_never_shrinks_with_more_nodes():
    notify = [calibration(NORMAL, "h100").notify_s(nodes) for nodes in range(1, 20)]
    assert notify == sorted(notify)


def test_the_user_may_set_the_sms_of_the_kernel_none_included():
    assert calibration(NORMAL, "h800").sms == 24
    assert calibration(LOW_LATENCY, "h800").sms == 0
    assert calibration(NORMAL, "h800", sms=0).sms == 0
    assert calibration(LOW_LATENCY, "h800", sms=12).sms == 12


def test_a_gpu_without_constants_takes_those_of_h100_and_says_so():
    unknown, h100 = calibration(LOW_LATENCY, "mi300x"), calibration(LOW_LATENCY, "h100")
    assert (unknown.nvlink_rate, unknown.nic_rate, unknown.nvlink_peak) == (h100.nvlink_rate, h100.nic_rate, 450 * GB)
    assert "no constants for mi300x: H100's are used" in unknown.source
    assert "no constants" not in h100.source
    assert calibration(LOW_LATENCY, "h800").source != h100.source


def test_an_unknown_algorithm_is_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"'deepep-hybrid'.*nccl-direct, deepep-normal, deepep-low-latency"):
        calibration("deepep-hybrid", "h800")
