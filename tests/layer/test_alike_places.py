"""Which ranks and links the traffic tells apart: even all-to-alls none, a copy more its rank and what that touches."""

from types import SimpleNamespace

import numpy as np
import pytest

from moesim.cluster import build_fabric
from moesim.cluster.topology_spec import KINDS
from moesim.layer import alike_places
from moesim.traffic import Copies
from moesim.traffic.alltoall import phase_flows
from tests.reference.alltoall_constants import plain

NODES, GPUS = 3, 2
RANKS = NODES * GPUS
NODE = np.arange(RANKS) // GPUS


def rails():
    blocks = {"nodes": NODES, "gpus_per_node": GPUS, "leaf_spine": {"spines": 2}, "routing": "spray"}
    blocks |= {"nvlink": {"bandwidth": "200GB/s"}, "nic": {"bandwidth": "50GB/s"}}
    return build_fabric(KINDS["rail"](kind="rail", gpu="h800", **blocks), "rails")


def copies(sent):
    return Copies(sent, sent, np.stack([sent[:, node == NODE].max(1) for node in range(NODES)], 1))


def load_of(fabric, sent, experts_s=None, algorithm="nccl-direct"):
    flows = {
        phase: phase_flows(fabric, copies(sent), plain(algorithm), phase, 100, tokens=np.full(RANKS, 10))
        for phase in ("dispatch", "combine")
    }
    seconds = {"experts": np.full(RANKS, 1e-3) if experts_s is None else experts_s}
    return SimpleNamespace(flows=flows, kernels=SimpleNamespace(seconds=seconds))


def classes(colours):
    return [set(np.flatnonzero(colours == one).tolist()) for one in dict.fromkeys(colours.tolist())]


@pytest.mark.parametrize("algorithm", ["nccl-direct", "deepep-low-latency", "deepep-normal"])
def test_even_traffic_tells_nothing_apart_but_the_kinds_of_links_and_their_directions(algorithm):
    fabric = rails()
    alike = alike_places(fabric, [load_of(fabric, np.full((RANKS, RANKS), 5), algorithm=algorithm)], np.zeros(RANKS))
    assert classes(alike.rank) == [set(range(RANKS))]
    kinds = {(fabric.link_class[link], bool(fabric.sender_port[link])) for link in range(fabric.n_links)}
    assert len(classes(alike.link)) == len(kinds) == 6


def test_links_of_one_colour_carry_the_same_bytes_in_every_phase():
    fabric, rng = rails(), np.random.default_rng(4)
    for _ in range(30):
        sent = rng.integers(0, 2, (RANKS, RANKS)) * 7
        loads = [load_of(fabric, sent), load_of(fabric, sent.T)]
        alike = alike_places(fabric, loads, np.zeros(RANKS))
        for links in map(list, classes(alike.link)):
            for load in loads:
                for flows in load.flows.values():
                    assert len(set(flows.link_wire_bytes(fabric.n_links)[links].round(6))) == 1
            assert len({fabric.link_class[link] for link in links}) == 1


def test_what_one_rank_sends_more_sets_it_and_its_node_and_its_rail_apart():
    fabric, sent = rails(), np.full((RANKS, RANKS), 5)
    sent[3] += 2  # n1.gpu1
    rank = alike_places(fabric, [load_of(fabric, sent)], np.zeros(RANKS)).rank
    assert sorted(map(sorted, classes(rank))) == [[0, 4], [1, 5], [2], [3]]


def test_equal_bytes_from_unequal_neighbours_are_not_alike():
    """Ranks 0 and 2 send and receive the same, but 0 with a slow rank and 2 with a fast one."""
    fabric, sent = rails(), np.zeros((RANKS, RANKS), int)
    sent[0, 4] = sent[4, 0] = sent[2, 5] = sent[5, 2] = 5
    rank = alike_places(fabric, [load_of(fabric, sent, np.array([1, 1, 1, 1, 9, 1]) * 1e-3)], np.zeros(RANKS)).rank
    assert rank[0] != rank[2]


def test_other_kernels_arrivals_and_rates_set_places_apart_and_names_do_not():
    fabric, even = rails(), np.full((RANKS, RANKS), 5)
    slow = np.full(RANKS, 1e-3)
    slow[5] = 2e-3
    assert {5} in classes(alike_places(fabric, [load_of(fabric, even, slow)], np.zeros(RANKS)).rank)
    late = np.eye(RANKS)[4] * 1e-6
    assert {4} in classes(alike_places(fabric, [load_of(fabric, even)], late).rank)
    fabric.capacity[fabric.link_names.index("n2.gpu0->rail0.leaf")] /= 2
    alike = alike_places(fabric, [load_of(fabric, even)], np.zeros(RANKS))
    assert sorted(map(sorted, classes(alike.rank))) == [[0, 2], [1, 3], [4], [5]]


def test_sums_in_another_order_are_the_same_number():
    fabric, even = rails(), np.full((RANKS, RANKS), 5)
    seconds = np.full(RANKS, 0.1 + 0.2 + 0.3)
    seconds[1] = 0.3 + 0.2 + 0.1
    assert seconds[0] != seconds[1]
    assert len(classes(alike_places(fabric, [load_of(fabric, even, seconds)], np.zeros(RANKS)).rank)) == 1
