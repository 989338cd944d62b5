"""Links that carry only a part of a flow: what it costs that the flow, not its bytes there, is the unit of fairness."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.network import solve_flows
from moesim.timeline import run_phase
from moesim.traffic import phase_flows
from moesim.traffic.copies import count_all_copies
from tests.reference.alltoall_constants import plain
from tests.reference.small_rail import small_rail

NODES, PER_NODE, EXPERTS, TOKENS, TOP_K = 8, 8, 256, 64, 8
RANKS = NODES * PER_NODE


def skewed_slots(rng, sigma, hot, top_nodes):
    """Slots [tokens, K] drawn by lognormal popularity, of the best nodes; ``hot`` is one expert's extra share."""
    weight = rng.lognormal(0.0, sigma, EXPERTS)
    weight[rng.integers(EXPERTS)] += hot * weight.sum()
    score = np.log(weight) + rng.gumbel(size=(RANKS * TOKENS, EXPERTS))
    by_node = score.reshape(len(score), NODES, -1)
    of_node = np.sort(by_node, axis=2)[:, :, -2:].sum(axis=2)
    left_out = np.argsort(-of_node, axis=1)[:, top_nodes:]
    by_node[np.arange(len(score))[:, None], left_out] = -np.inf
    return np.argsort(-score, axis=1)[:, :TOP_K].astype(np.int32)


def over_busiest(algorithm, phase, nvlink, slots, **terms):
    """How long a phase's bytes take, over what its busiest port or communication kernel needs for its own."""
    fabric = small_rail(NODES, PER_NODE, nvlink=nvlink)
    rank = np.repeat(np.arange(RANKS), TOKENS)
    copies = count_all_copies(slots, rank, np.arange(EXPERTS) // (EXPERTS // RANKS), RANKS, PER_NODE)
    tokens = np.full(RANKS, TOKENS)
    flows = phase_flows(fabric, copies, plain(algorithm, **terms), phase, 7168, cached_handle=True, tokens=tokens)
    flows = replace(flows, delays={}, exits={}, least_s=None)
    wires = flows.link_wire_bytes(fabric.n_links) / (fabric.capacity * flows.link_efficiency(fabric.n_links))
    return float(run_phase(fabric, flows).leave_s.max() / max(wires.max(), flows.kernel_seconds(RANKS).max()))


@pytest.mark.jit
@pytest.mark.parametrize("nvlink", ["200GB/s", "100GB/s"])
@pytest.mark.parametrize(
    ("algorithm", "terms", "most"),
    [
        ("deepep-normal", {}, 1.08),
        ("deepep-normal", {"rank_copy_sm_s": 1e-6, "node_copy_sm_s": 1e-6, "token_s": 2e-8}, 1.08),
        ("nccl-pxn", {}, 1.12),
    ],
)
def test_no_other_sharing_of_its_links_would_end_a_phase_of_trees_much_sooner(algorithm, terms, most, nvlink):
    """Nothing beats the busiest port; trees whose light links hold them back come close to it all the same."""
    rng = np.random.default_rng(7)
    ratios = [
        over_busiest(algorithm, phase, nvlink, skewed_slots(rng, sigma, hot, 4), **terms)
        for sigma, hot in ((0.0, 0.0), (0.5, 0.05), (1.0, 0.0), (1.5, 0.0), (1.5, 0.05))
        for phase in ("dispatch", "combine")
    ]
    assert min(ratios) > 1 - 1e-9
    assert np.median(ratios) < 1.02
    assert max(ratios) < most


def test_a_link_holds_a_flow_to_its_level_however_little_of_it_crosses():
    """Max-min fairness counts flows: one whose hundredth part crosses a full link runs no faster than the others there.

    So what is no part of a message, such as its acknowledgements, must not be a weight on the route.
    """
    full, own = 10.0, 100.0
    ptr, links, weight = [0, 1, 2, 4], [0, 0, 0, 1], [1.0, 1.0, 0.01, 1.0]
    rate = full / 2.01
    finish = solve_flows([full, own], [0.0, 0.0], ptr, links, [1e3, 1e3, rate], [0.0] * 3, weight)
    assert finish[2] == pytest.approx(1.0)
    # Off the route it is as fast as its own link.
    alone = solve_flows([full, own], [0.0, 0.0], [0, 1, 2, 3], [0, 0, 1], [1e3, 1e3, rate], [0.0] * 3)
    assert alone[2] == pytest.approx(rate / own)
