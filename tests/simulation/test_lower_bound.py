"""The lower bound counts at a rank's ports what it waits for and what waits for it, whoever else's bytes pass there."""

import numpy as np
import pytest

from moesim.cluster import load_topology
from moesim.simulation.lower_bound import lower_bound
from moesim.timeline import LayerWork, run_layers
from moesim.traffic import Copies
from moesim.traffic.alltoall import phase_flows
from tests.reference.alltoall_constants import plain

PLANES = """
kind: multi-plane
gpu: h800
nodes: 2
gpus_per_node: 2
nodes_per_leaf: 2
nvlink: {bandwidth: 200GB/s, latency: 3us}
nic: {bandwidth: 50GB/s, latency: 2us}
leaf_spine: {spines: 2, latency: 1us}
routing: spray
"""
MILLISECOND = 50_000_000  # of a NIC at its peak, in copies of one byte


@pytest.mark.parametrize("algorithm", ["nccl-direct", "deepep-low-latency"])
def test_what_a_neighbour_sends_by_the_own_nic_is_not_the_own_load(tmp_path, algorithm):
    (tmp_path / "planes.yaml").write_text(PLANES)
    fabric = load_topology(tmp_path / "planes.yaml")
    sent = np.zeros((4, 4), int)
    sent[0, 3] = MILLISECOND  # for the plane of rank 3: by the NIC of rank 1, and back by that of rank 2
    copies, nothing, traces = Copies(sent, sent, np.zeros((4, 2), int)), np.zeros(4), []
    flows = [phase_flows(fabric, copies, plain(algorithm), phase, 1) for phase in ("dispatch", "combine")]
    slow = np.array([0, 9e-3, 0, 0])
    run_layers(
        fabric, 1, lambda _: LayerWork(nothing, nothing, nothing, slow, nothing, *flows, False), traces.append,
        nothing, 0.0, 1e-3,
    )  # fmt: skip
    assert traces[0].dispatch.flows.link_wire_bytes(fabric.n_links)[fabric.paths.nic_out[1]] == MILLISECOND
    # Rank 1 has 9 ms of experts and nothing else; rank 3 receives for 1 ms, and its answers' first hop is NVLink.
    took = traces[0].end_s_of_layer.max()
    assert lower_bound(traces[0], fabric, slow).seconds == pytest.approx(9e-3) and took < 9.5e-3
    assert lower_bound(traces[0], fabric, nothing).seconds == pytest.approx(1e-3 + MILLISECOND / 200e9)
