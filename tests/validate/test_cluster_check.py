"""A cluster against its peers: intervals, wires and likely causes, on clusters whose truth is known."""

import math
from dataclasses import replace

import pytest

from moesim.traffic import CalibrationSet, Uncertain, value_at, with_value
from moesim.validate.cluster_check import EIGHTY, expect, of_clusters, set_for, wires
from moesim.validate.published_row import TIME, Row
from moesim.validate.row_simulation import constants_from, simulated_seconds

# Fits and runs of many layers.
pytestmark = pytest.mark.jit

NIC = ("nic_rate",)


def row(library: str = "deepep-ll", ranks: int = 16, tokens: int = 128, op: str = "dispatch", **more: object) -> Row:
    made = Row(
        table="mine", key=f"{op} {ranks} {tokens}", library=library, release="", gpu="h100", source="mine",
        quantity=TIME, published=1.0, op=op, ranks=ranks, nodes=max(1, ranks // 8), tokens=tokens,
        dtype="fp8" if op == "dispatch" else "bf16", sms=24 if library == "deepep-v1" else None, cluster="mine",
        nic_peak=50e9,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def measured_with(one: Row, change: float, term: str) -> Row:
    """The row as a cluster would have measured it whose constants of this name are ``change`` times as large."""
    found = set_for(one)
    for uncertain in found.spread.uncertain:
        for place in uncertain.places:
            if place[-1] == term:
                found = with_value(found, place, value_at(found, place) * change)
    return replace(one, published=1e6 * simulated_seconds(one, constants_from(found, one)))


def test_a_cluster_like_its_peers_is_as_expected() -> None:
    rows = [
        measured_with(row(op=op, tokens=tokens), 1.0, "nic_rate")
        for op in ("dispatch", "combine")
        for tokens in (4, 128)
    ]
    found = [expect(one) for one in rows]
    assert [one.error for one in found] == pytest.approx([0.0] * 4, abs=1e-9)
    assert all(one.low < one.seconds < one.high for one in found)
    assert all(not wire.cause for wire in wires(found))


def test_the_interval_is_that_of_one_constant_where_only_one_is_uncertain() -> None:
    one = row()
    found = set_for(one)
    only = Uncertain((("dispatch", "nic_rate"), ("combine", "nic_rate")), "nic", 0.2, {}, {})
    alone: CalibrationSet = replace(found, uncertain=(only,), row_spread=0.0, widen=1.0)
    slow = with_value(alone, ("dispatch", "nic_rate"), value_at(alone, ("dispatch", "nic_rate")) * 0.999)
    log = [math.log(simulated_seconds(one, constants_from(each, one))) for each in (alone, slow)]
    slope = (log[1] - log[0]) / math.log(0.999)
    said = expect(one, alone)
    assert said.shares["nic"] == pytest.approx(-slope, rel=0.02)
    assert said.high / said.simulated == pytest.approx(math.exp(EIGHTY * abs(slope) * 0.2), rel=0.01)
    assert said.low * said.high == pytest.approx(said.simulated**2)


@pytest.mark.parametrize("library", ["deepep-ll", "deepep-v1", "deepep-v2"])
def test_nics_at_half_rate_are_named_and_nothing_else(library: str) -> None:
    tokens = 128 if library == "deepep-ll" else 8192
    rows = [
        measured_with(row(library, 32, tokens, op, sms=24 if library != "deepep-ll" else None), 0.5, "nic_rate")
        for op in ("dispatch", "combine")
    ]
    found = {wire.kind: wire for wire in wires([expect(one) for one in rows])}
    assert found["nic"].measured == pytest.approx(0.5 * found["nic"].expected, rel=0.15)
    assert "half of its peers'" in found["nic"].cause
    assert not any(wire.cause for kind, wire in found.items() if kind != "nic")


def test_set_ups_of_a_proxy_are_recognised() -> None:
    one = row(tokens=4)
    proxy = set_for(one, "proxy")
    late = replace(one, published=1.3e6 * simulated_seconds(one, constants_from(proxy, one)))
    found = {wire.kind: wire for wire in wires([expect(late)])}
    assert "CPU proxy" in found["setup"].cause


def test_nvlink_far_below_is_pcie() -> None:
    one = row("deepep-v1", 8, 8192)
    slow = replace(one, published=1e6 * 12 * expect(one).simulated)
    found = {wire.kind: wire for wire in wires([expect(slow)])}
    assert found.keys() == {"nvlink"}
    assert {wire.cause for wire in found.values()} == {"PCIe instead of NVLink?"}
    assert found["nvlink"].measured == pytest.approx(found["nvlink"].expected / 12, rel=0.2)


def test_rows_are_grouped_by_cluster_and_library() -> None:
    rows = [row(), row("deepep-v1", 16, 4096), row(cluster="other")]
    assert [len(group) for group in of_clusters(expect(one) for one in rows).values()] == [1, 1, 1]
