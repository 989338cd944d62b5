"""Sets of constants as data: which one is taken, what a user's own file may say, what the terms mean."""

from dataclasses import replace

import pytest

from moesim.alltoall_library import ALGORITHMS
from moesim.errors import InputError
from moesim.traffic.constant_sets import calibration, find_set, read_set, set_names
from tests.reference.alltoall_constants import plain

US, GB = 1e-6, 1e9
NORMAL, LOW_LATENCY, NCCL = "deepep-normal", "deepep-low-latency", "nccl-direct"

OWN = """\
algorithm: deepep-normal
gpu: h100
source: "our cluster, 3 March"
rows: [own/1, own/2]
error: {median: 0.021}
dispatch: {nvlink_rate: 300GB/s, nic_rate: 44.5GB/s, setup_intra_node: 12us, sms: 20, layout: 30us}
combine: {nvlink_rate: 310GB/s, nic_rate: 45GB/s, sms: 20}
across:
  dispatch: {nvlink_rate: 280GB/s, nic_rate: 46GB/s, setup_inter_node: 30us, node_copy_sm: 0.469us, sms: 24}
  combine: {nvlink_rate: 281GB/s, nic_rate: 47GB/s, fill: 84.5us, fill_tokens: 152, sms: 24}
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize("name", set_names())
def test_every_shipped_set_is_possible(name):
    made = read_set_named(name)
    for phase in ("dispatch", "combine"):
        one = calibration(made.algorithm, made.gpu, phase=phase, source=name)
        for constants in (one, one.spanning(2)):
            assert 0 < constants.nic_rate <= constants.nic_peak
            # nothing beats its port, however the rate depends on SMs and ranks
            assert all(0 < constants.nvlink_speed(ranks) <= constants.nvlink_peak for ranks in (2, 8, 64, 1024))
            assert constants.sms <= constants.total_sms
            assert (constants.name, constants.phase) == (name, phase)
    # who claims to be fitted says on what and how well
    assert bool(made.rows) == bool(made.error)
    assert made.source


def read_set_named(name):
    (algorithm,) = [one for one in ALGORITHMS if name in set_names(one)]
    found = find_set(algorithm, "h100", name)
    assert found.algorithm == algorithm
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("gpu", ["h800", "h100", "h200", "h20", "b200", "gb200", "mi300x"])
def test_every_algorithm_has_constants_for_every_gpu_and_says_whose_they_are(algorithm, gpu):
    constants = calibration(algorithm, gpu)
    assert constants.algorithm == algorithm
    whose = find_set(algorithm, gpu).gpu
    if gpu == "mi300x":
        assert f"no constants for mi300x: {whose.upper()}'s are used" in constants.source
    elif whose == gpu:
        assert "no constants" not in constants.source


def test_a_gpu_without_constants_takes_those_of_h100():
    for nodes in (1, 2):
        unknown, h100 = (calibration(NORMAL, gpu).spanning(nodes) for gpu in ("mi300x", "h100"))
        assert replace(unknown, gpu="h100", source=h100.source, across=None) == replace(h100, across=None)


@pytest.mark.parametrize(("gpu", "sms"), [("h800", 132), ("h100", 132), ("h20", 78), ("b200", 148), ("gb200", 152)])
def test_sms_are_those_of_the_gpu_and_not_of_where_the_rates_come_from(gpu, sms):
    assert calibration(NORMAL, gpu).total_sms == sms


def test_a_users_own_file_is_used_as_it_says(own):
    dispatch = calibration(NORMAL, "h100", source=str(own))
    assert (dispatch.nvlink_rate, dispatch.nic_rate) == (300 * GB, 44.5 * GB)
    assert (dispatch.setup_intra_node_s, dispatch.layout_s) == pytest.approx((12 * US, 30 * US), rel=1e-12)
    assert (dispatch.name, dispatch.source) == ("own", "our cluster, 3 March")
    assert (dispatch.rows, dispatch.error) == (("own/1", "own/2"), (("median", 0.021),))
    # the kernel that spans nodes has terms of its own
    across = dispatch.spanning(4)
    assert dispatch.spanning(1) is dispatch
    assert (across.nic_rate, across.sms, across.layout_s) == (46 * GB, 24, 0)
    assert across.node_copy_sm_s == pytest.approx(0.469 * US, rel=1e-12)
    combine = calibration(NORMAL, "h100", source=str(own), phase="combine").spanning(2)
    assert (combine.nic_rate, combine.fill_tokens) == (47 * GB, 152)


def test_a_file_on_another_gpu_says_whose_constants_they_are(own):
    assert "no constants for mi300x: H100's are used" in calibration(NORMAL, "mi300x", source=str(own)).source


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("44.5GB/s", "44.5"), r"own.yaml:6:4\d: dispatch.nic_rate: .*unit"),
        (("300GB/s", "-3GB/s"), r"own.yaml:6:\d+: dispatch.nvlink_rate"),
        (("setup_intra_node", "setup_intranode"), r"own.yaml:6:\d+: .*setup_intranode"),
        (("sms: 20, layout", "sms: many, layout"), r"own.yaml:6:\d+: dispatch.sms"),
        (("deepep-normal", "deepep-nrmal"), r"own.yaml:1:12.*'deepep-nrmal'.*deepep-normal"),
        (("gpu: h100", "gpu: mi300x"), r"own.yaml:2:6.*ports of 'mi300x'"),
        (("combine: {nvlink_rate: 310GB/s, ", "combine: {"), r"own.yaml:7.*combine.*nvlink_rate"),
    ],
)
def test_mistakes_in_a_file_are_told_with_their_place(own, change, says):
    own.write_text(OWN.replace(*change, 1))
    with pytest.raises(InputError, match=says):
        read_set(own)


def test_a_set_of_another_algorithm_or_one_that_is_not_there_is_refused(own):
    with pytest.raises(InputError, match=r"constants of deepep-normal, the algorithm is nccl-direct"):
        calibration(NCCL, "h100", source=str(own))
    with pytest.raises(InputError, match=r"unknown calibration 'deepep-normal-h10'.*deepep-normal-h100"):
        calibration(NORMAL, "h100", source="deepep-normal-h10")


def test_an_unknown_algorithm_is_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"'deepep-hybrid'.*nccl-direct, nccl-pxn, deepep-normal"):
        calibration("deepep-hybrid", "h800")


def test_a_rate_of_the_bytes_that_a_benchmark_counts_is_kept_for_those_on_the_wire(own):
    own.write_text(OWN.replace("dispatch:", "rates_count: payload\ndispatch:", 1))
    constants = calibration(NORMAL, "h100", 7472 / 7392, source=str(own))
    # as many token copies a second either way
    assert constants.nic_rate / 7472 == pytest.approx(44.5 * GB / 7392, rel=1e-15)
    assert constants.spanning(2).nvlink_rate / 7472 == pytest.approx(280 * GB / 7392, rel=1e-15)


def test_the_user_may_set_the_sms_of_the_kernel_none_included(own):
    assert calibration(NORMAL, "h100", source=str(own)).sms == 20
    assert calibration(NORMAL, "h100", source=str(own), sms=0).sms == 0
    assert calibration(NORMAL, "h100", source=str(own), sms=8).spanning(2).sms == 8


def test_whatever_the_nics_transport_crosses_takes_the_nics_efficiency():
    constants = plain(NORMAL)
    assert constants.efficiency("nvlink") == 0.64
    assert {constants.efficiency(name) for name in ("nic", "leaf-spine", "long-haul")} == {0.86}


def test_nvlink_gets_slower_with_fewer_sms_and_more_ranks():
    # DeepEP V2 on B200: 689 / (1 + 5.4 / S)
    b200 = replace(plain(NORMAL), nvlink_rate=689 * GB, nvlink_sm_half=5.4, nvlink_peak=900 * GB)
    with_sms = [replace(b200, sms=s) for s in (24, 64)]
    assert [one.nvlink_speed() / GB for one in with_sms] == pytest.approx([562.449, 635.389], rel=1e-5)
    # TensorRT-LLM, blog 18: 699 / (1 + 0.074 log2(R / 8))
    slope = replace(plain(NORMAL), nvlink_rate=699 * GB, nvlink_rank_slope=0.074, nvlink_peak=900 * GB)
    assert [slope.nvlink_speed(ranks) / GB for ranks in (8, 16, 64)] == pytest.approx([699, 650.838, 572.013], rel=1e-5)
    assert replace(slope, nvlink_rate=899 * GB).nvlink_speed(2) == 900 * GB  # never above the port


def test_set_up_grows_with_nodes_ranks_and_experts():
    constants = replace(
        plain(NORMAL),
        setup_intra_node_s=10 * US,
        setup_inter_node_s=20 * US,
        setup_node_doubling_s=4 * US,
        setup_rank_doubling_s=1 * US,
        setup_rank_s=0.5 * US,
        setup_expert_s=0.01 * US,
    )
    assert constants.setup_s(True, 1, 8) == pytest.approx(10 * US)
    assert constants.setup_s(True, 1, 4, 256) == pytest.approx((10 - 1 + 2.56) * US)
    # 8 nodes: two doublings beyond two; 64 ranks: three beyond eight, and 56 more of them
    assert constants.setup_s(False, 8, 64) == pytest.approx((20 + 8 + 3 + 28) * US)
    assert replace(constants, setup_rank_doubling_s=100 * US).setup_s(True, 1, 2) == 0  # never negative


def test_the_floor_follows_the_ranks():
    constants = replace(plain(NORMAL), floor_s=25.9 * US, floor_rank_doubling_s=4.6 * US, floor_few_ranks_s=17.2 * US)
    assert [constants.least_s(ranks) / US for ranks in (2, 4, 8, 16)] == pytest.approx([17.2, 17.2, 25.9, 30.5])
    assert plain(NORMAL).least_s(8) == 0


@pytest.mark.parametrize(("nodes", "us"), [(1, 32), (2, 32), (4, 55), (5, 55), (8, 55), (128, 55)])
def test_notify_takes_32_us_at_two_nodes_and_55_from_four_on(nodes, us):
    assert plain(NORMAL).notify_s(nodes) == pytest.approx(us * US, rel=1e-12)
    assert sum(plain(NORMAL).exchange(nodes, 8 * nodes, 1000).values()) == pytest.approx((us + 100) * US, rel=1e-12)


def test_the_two_sided_preparation_depends_on_ranks_and_tokens():
    # 10.75 us + 0.77 us log2 R + 6.9 ns T is 13.06 us at eight ranks
    constants = replace(
        plain("nvl-two-sided"), prepare_s=13.06 * US, prepare_rank_doubling_s=0.77 * US, prepare_token_s=6.9e-9
    )
    assert sum(constants.exchange(1, 64, 1024).values()) == pytest.approx(
        (10.75 + 0.77 * 6) * US + 6.9e-9 * 1024, rel=1e-9
    )
