"""Links faster than any of today are asked about, and no other."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.cluster import NIC, NVLINK, beyond_today, load_topology, topology_names


def with_rate(link_class, rate):
    fabric = load_topology("h100-2x2-rail")
    return replace(fabric, capacity=np.where(fabric.is_class(link_class), rate, fabric.capacity))


@pytest.mark.parametrize("name", topology_names())
def test_no_cluster_that_ships_is_asked_about(name):
    assert beyond_today(load_topology(name)) == []


def test_bytes_typed_for_bits_are_asked_about():
    (question,) = beyond_today(with_rate(NIC, 400e9))
    assert question == (
        "400 GB/s of a GPU is above any of today's NICs (1.6Tb/s, two of 800Gb/s): did you mean 400Gb/s?"
    )


def test_a_rate_of_both_directions_is_asked_about():
    (question,) = beyond_today(with_rate(NVLINK, 3.6e12))
    assert question.endswith("NVLinks (1.8TB/s, of Rubin): is 3600 GB/s that of both directions together?")


@pytest.mark.parametrize(("link_class", "fastest"), [(NIC, 1.6e12 / 8), (NVLINK, 1.8e12)])
def test_the_fastest_of_today_is_not(link_class, fastest):
    assert beyond_today(with_rate(link_class, fastest)) == []
    assert len(beyond_today(with_rate(link_class, fastest * 1.01))) == 1
