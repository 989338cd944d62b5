"""Constants moved by kind: each term of a set belongs to one kind at most, and slower is slower."""

import math
from dataclasses import fields, replace

import pytest

from moesim.traffic.constants import Calibration, Protocol
from moesim.traffic.spread import BORROWED, BORROWED_ROW_SPREAD, KINDS, room, slower, spread_of
from tests.reference.alltoall_constants import plain

# What no cluster is slower or faster in: ports, the GPU, shares and numbers of tokens.
FIXED = {
    "algorithm", "gpu", "phase", "name", "source", "nvlink_peak", "nic_peak", "total_sms", "sms", "nvlink_sm_half",
    "nvlink_rank_slope", "fill_tokens", "fill_tokens_per_sm", "protocols", "across", "rows", "error", "held_out",
    "deviations", "row_spread", "widen", "clusters",
}  # fmt: skip


def all_of_them():
    ones = {one.name: 1.0 for one in fields(Calibration) if one.name not in FIXED}
    protocol = Protocol("LL", **{one.name: 1.0 for one in fields(Protocol) if one.name != "name"})
    return replace(plain("deepep-normal"), **ones, nic_peak=1.05, nvlink_peak=2.0, protocols=(protocol,))


def changed(before, after):
    moved = {name for name, value in vars(before).items() if getattr(after, name) != value} - {"protocols"}
    return {name: getattr(after, name) / getattr(before, name) for name in moved}


def test_every_term_is_of_one_kind_and_moves_to_the_slow_side():
    constants = all_of_them()
    terms, of_protocol = [], []
    for kind in KINDS:
        moved = slower(constants, kind, 0.2)
        (protocol,), (before,) = moved.protocols, constants.protocols
        own = changed(constants, moved)
        inside = changed(before, protocol)
        for name, factor in [*own.items(), *inside.items()]:
            assert factor == pytest.approx(math.exp(-0.2 if "rate" in name else 0.2)), name
        terms += own
        of_protocol += inside
    assert sorted(terms) == sorted({one.name for one in fields(Calibration)} - FIXED)
    assert sorted(of_protocol) == sorted(one.name for one in fields(Protocol) if one.name != "name")


def test_faster_ports_end_at_their_peak():
    constants = all_of_them()
    assert slower(constants, "nic", -0.2).nic_rate == 1.05
    far = slower(constants, "nvlink", -1.0)
    assert far.efficiency("nvlink") == 1.0
    assert (far.protocols[0].nvlink_rate, far.protocols[0].two_ranks_nvlink_rate) == (2.0, 2.0)
    assert room(constants, "nic", 8) == pytest.approx(math.log(1.05))
    assert room(constants, "setup", 8) == math.inf


def test_a_set_of_one_source_borrows_and_an_own_one_does_not():
    constants = replace(plain("deepep-normal"), deviations=(), row_spread=0.0)
    assert spread_of(constants, own=False).deviations == BORROWED
    assert "borrowed" in spread_of(constants, own=False).source
    own = spread_of(replace(constants, row_spread=0.01), own=True)
    assert (own.deviations, own.row_spread) == ({}, 0.01)
    assert spread_of(constants, own=True).row_spread == BORROWED_ROW_SPREAD
    fitted = replace(constants, deviations=(("nic", 0.07),), row_spread=0.04, widen=1.3, clusters=9)
    for whose in (True, False):
        found = spread_of(fitted, whose)
        # What a set does not know of clusters, such as what runs before the kernel, is lent unless it states it.
        assert found.deviations == dict(BORROWED) | {"nic": 0.07}
        assert (found.row_spread, found.widen) == (0.04, 1.3)
        assert "9 clusters" in found.source
    stated = replace(fitted, deviations=(("nic", 0.07), ("host", 0.5)))
    assert spread_of(stated, own=False).deviations == dict(BORROWED) | {"nic": 0.07, "host": 0.5}
