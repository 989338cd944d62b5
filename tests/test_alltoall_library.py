"""One record per all-to-all: what it says against the pages of docs/algorithms, and everything that follows from it."""

import re
from pathlib import Path

import numpy as np
import pytest

from moesim.alltoall_library import ALGORITHMS, algorithm_named
from moesim.errors import InputError
from moesim.scenario import json_schema, load_scenario
from moesim.traffic import count_all_copies
from moesim.traffic.alltoall import phase_flows
from moesim.validate.benches import bench_of, is_transfer
from moesim.validate.published import published_rows
from tests.reference.alltoall_constants import plain
from tests.reference.small_rail import small_rail

RECORDS = [algorithm_named(name) for name in ALGORITHMS]
EVERYBODY = (0, 1, 2, 3)

# Ranks that must be in before rank 0's flow to rank 3 (of a tree: to rank 3's node) starts, and before the one back
# does, on 2 nodes of 2: from the pages' "Who waits". The tree's way is 0, 2, 3. First the dispatch with a handle.
WAITS = {
    "nccl-direct": ((0, 3), (0, 3), (0, 3)),
    "nccl-pxn": ((0, 1, 3), (0, 1, 3), (0, 2, 3)),  # the whole sending node and the target
    "deepep-normal": ((0, 2), EVERYBODY, (2, 3)),
    "deepep-v2-hybrid": (EVERYBODY, EVERYBODY, EVERYBODY),
    "deepep-v2-direct": (EVERYBODY, EVERYBODY, EVERYBODY),
    "hybrid-ep": ((0, 2), EVERYBODY, (2, 3)),
    "deepep-low-latency": ((0,), (0,), (3,)),
    "deepep-low-latency-nic": ((0,), (0,), (3,)),
    "nvl-one-sided": ((0,), (0,), EVERYBODY),
    "nvl-two-sided": (EVERYBODY, EVERYBODY, (0, 3)),
    "allgather-reduce-scatter": (EVERYBODY, EVERYBODY, EVERYBODY),
}
# Nobody leaves these before everybody's flows are done.
BARRIERS = {("deepep-v2-direct", "dispatch"), ("deepep-v2-direct", "combine"), ("nvl-one-sided", "dispatch")}


def flows_of(algorithm, phase, cached=False):
    """One token of rank 0 with one expert on rank 3: 2 nodes of 2, or 4 ranks of one domain."""
    fabric = small_rail(1, 4) if algorithm.one_domain else small_rail(2, 2)
    copies = count_all_copies(np.array([[3]]), np.array([0]), np.arange(4), 4, fabric.ranks_per_node)
    tokens = np.array([1, 0, 0, 0])
    return phase_flows(fabric, copies, plain(algorithm.name), phase, 100, cached, tokens=tokens)


@pytest.mark.parametrize("algorithm", RECORDS, ids=ALGORITHMS)
def test_a_flow_waits_for_whom_the_page_says(algorithm):
    for phase, cached, who in zip(
        ("dispatch", "dispatch", "combine"), (True, False, False), WAITS[algorithm.name], strict=True
    ):
        flows = flows_of(algorithm, phase, cached)
        (flow,) = np.flatnonzero(flows.size)
        gate = set(flows.gate_ranks[flows.gate_ptr[flow] : flows.gate_ptr[flow + 1]].tolist())
        assert who == (EVERYBODY if flows.all_ranks_gate else tuple(sorted(gate)))


@pytest.mark.parametrize("algorithm", RECORDS, ids=ALGORITHMS)
def test_a_barrier_closes_the_phases_that_the_page_says(algorithm):
    closed = {phase for phase in ("dispatch", "combine") if flows_of(algorithm, phase).all_ranks_leave}
    assert closed == {phase for name, phase in BARRIERS if name == algorithm.name}


@pytest.mark.parametrize("algorithm", RECORDS, ids=ALGORITHMS)
def test_a_record_asks_only_for_what_its_flows_can_do(algorithm):
    copies = {"pairs": ("selection", "rank"), "trees": ("node",), "proxies": ("selection",), "rings": ("all",)}
    gates = {"pairs": {"source", "ends", "all"}, "trees": {"ends", "all"}, "proxies": {"ends", "all"}, "rings": {"all"}}
    assert algorithm.copies in copies[algorithm.flows]
    assert set(algorithm.gates) <= gates[algorithm.flows]
    assert algorithm.flows == "pairs" or not (algorithm.posted or algorithm.nic_only)
    assert not (algorithm.permutes_first and algorithm.permutes_inside)
    assert not algorithm.one_domain or algorithm.flows == "pairs"


def test_a_scenario_takes_the_names_of_the_records_and_no_other():
    algorithm = json_schema()["$defs"]["AllToAll"]["properties"]["algorithm"]
    assert algorithm["enum"] == list(ALGORITHMS)
    with pytest.raises(InputError, match=r"got 'hybrid-epp'.*did you mean 'hybrid-ep'\?"):
        load_scenario({"cluster": {"topology": "hgx-h800"}, "alltoall": {"algorithm": "hybrid-epp"}})
    with pytest.raises(InputError, match="use one of nccl-direct, nccl-pxn, "):
        algorithm_named("hybrid-epp")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_handle_and_a_hook_are_taken_from_the_libraries_that_have_them(name):
    trees_and_second = ("deepep-normal", "deepep-v2-hybrid", "deepep-v2-direct", "hybrid-ep")
    for key, having in (
        ({"cached_handle": True}, trees_and_second),
        ({"receive_hook": False}, ("deepep-low-latency", "deepep-low-latency-nic")),
    ):
        plain_data = {"cluster": {"topology": "hgx-h800"}, "alltoall": {"algorithm": name, **key}}
        if name in having:
            load_scenario(plain_data)
        else:
            with pytest.raises(InputError, match=f"{name} has no "):
                load_scenario(plain_data)


COPIES = {
    "selection": "one per selection",
    "rank": "one per rank",
    "node": "one per node, then one per rank",
    "all": "every token to every rank",
}
ACROSS = {
    "pairs": "own NIC to the target's NIC",
    "trees": "on the rail, forwarded",
    "proxies": "over NVLink to the target's rail first",
    "rings": "rings",
}
BYTES = {
    "payload": "nothing",
    "header": "16 in dispatch",
    "experts": "8 K in dispatch",
    "packed": "8 + 8 K, to a multiple of 16",
    "parts": "ids, weights, links; each part to a multiple of 32",
}


def waits(algorithm, phase):
    words = {"source": "its source", "ends": "both ends", "all": "everybody"}
    fresh, cached = (words[algorithm.gate(phase, fresh)] for fresh in (True, False))
    text = fresh if fresh == cached else f"{fresh}; with a handle {cached}"
    return text + "; barrier at the end" * (phase in algorithm.closing_barrier)


def row(algorithm):
    across = "NIC, inside a node too" if algorithm.nic_only else ACROSS[algorithm.flows]
    cells = (
        f"[`{algorithm.name}`]({algorithm.name}.md)",
        COPIES[algorithm.copies],
        "does not" if algorithm.one_domain else across,
        waits(algorithm, "dispatch"),
        waits(algorithm, "combine"),
        BYTES[algorithm.layout],
        algorithm.description,
    )
    return f"| {' | '.join(cells)} |"


def test_the_table_of_the_documentation_says_what_the_records_say():
    page = (Path(__file__).parents[1] / "docs/algorithms/README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[`.*", page, re.MULTILINE) == [row(algorithm) for algorithm in RECORDS]


def test_tokens_are_sorted_where_the_page_says():
    """Before a plain all-to-all, inside the low-latency kernels, which cast too, and after all others."""
    assert {one.name for one in RECORDS if one.permutes_first} == {"nccl-direct", "nccl-pxn"}
    inside = {"deepep-low-latency", "deepep-low-latency-nic"}
    assert {one.name for one in RECORDS if one.permutes_inside} == inside
    assert {one.name for one in RECORDS if one.quantises_inside} == inside


def test_published_rows_are_simulated_by_an_algorithm_that_their_benchmark_measures():
    seen = {(row.library, bench_of(row).algorithm) for row in published_rows() if is_transfer(row)}
    named = {(one.benchmark, one.name) for one in RECORDS if one.benchmark}
    # Rows of these do not ship: they are extracted from data sets of others.
    elsewhere = {("nccl", "nccl-direct"), ("nccl", "nccl-pxn"), ("trtllm-two-sided", "nvl-two-sided")}
    assert named - seen == elsewhere
    # Without NVLink DeepEP's only way is the direct one.
    assert seen - named == {("deepep-pcie", "deepep-v2-direct")}
