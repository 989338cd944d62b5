"""What a difference between two runs is worth on clusters that nobody measured: shared unknowns cancel."""

import math

import numpy as np
import pytest

from moesim.report import compare
from moesim.results import Value, told_apart
from moesim.results.bands import interval
from tests.run.small import run_ids

Z = 1.2815515655446004
SET = """\
algorithm: deepep-normal
gpu: h800
source: "made up"
row_spread: 0.03
uncertain:
  - {of: [dispatch.nvlink_rate, combine.nvlink_rate], kind: nvlink, deviation: 0.1}
  - {of: [dispatch.nic_rate, combine.nic_rate], kind: nic, deviation: 0.1}
dispatch: {nvlink_rate: 40GB/s, nic_rate: 40GB/s}
combine: {nvlink_rate: 40GB/s, nic_rate: 40GB/s}
"""


def run(folder, tokens, by_nic, name="shared"):
    """Two nodes of eight: each token goes to one GPU, the own one's rail mate on the other node or a neighbour."""
    (folder / f"{name}.yaml").write_text(SET)
    rank = np.repeat(np.arange(16), tokens)
    target = (rank + 8) % 16 if by_nic else rank // 8 * 8 + (rank + 1) % 8
    overrides = ("cluster.topology=h800-8x8-rail", "parallel.ep=16", f"alltoall.calibration={folder / f'{name}.yaml'}")
    return run_ids(folder, 2 * target[:, None], [tokens] * 16, *overrides)


def verdict(a, b, key="dispatch_time_mean_s"):
    return {row.key: row.verdict for row in compare(a, b).rows}[key]


def test_one_per_cent_more_bytes_on_the_same_unknown_cluster_is_told_apart(tmp_path):
    less, more = (run(tmp_path, tokens, by_nic=True) for tokens in (4000, 4040))
    rise = more.summary["dispatch_time_mean_s"] / less.summary["dispatch_time_mean_s"]
    assert rise == pytest.approx(1.01, rel=1e-3)
    assert verdict(less, more) == "worse" and verdict(less, more, "layer_time_s") == "worse"
    assert verdict(more, less) == "better" and verdict(more, less, "layer_time_s") == "better"
    # On another set's cluster each has its own unknowns: 1 % is nothing beside a tenth.
    elsewhere = run(tmp_path, 4040, by_nic=True, name="another")
    assert verdict(less, elsewhere) == "within the model's error"


def test_nics_against_nvlink_are_not_told_apart_by_a_few_per_cent(tmp_path):
    nic, nvlink = run(tmp_path, 4000, by_nic=True), run(tmp_path, 4120, by_nic=False)
    assert nvlink.summary["dispatch_time_mean_s"] / nic.summary["dispatch_time_mean_s"] == pytest.approx(1.03, rel=5e-3)
    assert verdict(nic, nvlink) == "within the model's error"
    assert verdict(nic, nvlink, "layer_time_s") == "within the model's error"
    # A half more is more than two rates a tenth apart make likely.
    assert verdict(nic, run(tmp_path, 6000, by_nic=False)) == "worse"


def band(cell="one", widen=1.0, **moves):
    return {"cell": [cell], "widen": widen, "moves": {"layer_time_s": moves}}


@pytest.mark.parametrize("widen", [1.0, 1.5])
def test_the_limit_of_what_is_told_apart_follows_from_what_differs(widen):
    a, b = band(widen=widen, nic=[-0.1, 0.1], setup=[-0.02, 0.04]), band(nic=[-0.06, 0.06], fill=[-0.01, 0.01])
    shared = math.exp(Z * widen * math.hypot(0.04, 0.03, 0.01))
    apart = math.exp(Z * widen * math.hypot(0.1, 0.06, 0.03, 0.01))
    for limit, other in ((shared, b), (apart, {**b, "cell": ["two"]})):
        assert told_apart(a, other, "layer_time_s", limit * 1.001) and told_apart(
            a, other, "layer_time_s", 0.999 / limit
        )
        assert not told_apart(a, other, "layer_time_s", limit * 0.999)
        assert not told_apart(other, a, "layer_time_s", 1.001 / limit)


def test_an_interval_is_as_wide_on_each_side_as_its_unknowns():
    low, high = interval(2.0, {"nic": [-0.03, 0.1], "setup": [-0.04, 0.0]}, 1.2)
    assert (low, high) == pytest.approx((2 * math.exp(-Z * 1.2 * 0.05), 2 * math.exp(Z * 1.2 * 0.1)))


def test_a_unit_that_value_and_ends_share_is_written_once():
    words = {1.0: "1 ms", 2.0: "2 ms", 0.5: "500 us"}
    assert Value(1.0).words(words.__getitem__) == "1 ms"
    assert Value(1.0, 1.0, 2.0).words(words.__getitem__) == "1 ms (1 to 2)"
    assert Value(1.0, 0.5, 2.0).words(words.__getitem__) == "1 ms (500 us to 2 ms)"
