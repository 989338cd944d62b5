"""What a training step is made of: model FLOPs, layers dealt to stages, collectives; by hand and by brute force."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from moesim.cluster import load_topology
from moesim.layer import Passes
from moesim.measure import model_flops
from moesim.measure.gradient_update import collective_seconds, port_rate
from moesim.measure.pipeline_stages import Chunk, Stage, StageCosts, dealt
from moesim.model import load_model
from moesim.timeline import Pass


@pytest.mark.parametrize(
    ("preset", "published", "within"), [("deepseek-v3", 250e9, 0.01), ("deepseek-r1", 250e9, 0.01)]
)
def test_model_flops_of_a_token_are_the_published_ones(preset, published, within):
    """arXiv:2505.09343, table 2: 250 GFLOPs a token at 4,096 tokens."""
    assert model_flops(load_model(preset), (4096,)) == pytest.approx(published, rel=within)


def test_without_the_mask_core_attention_counts_twice():
    spec = load_model("deepseek-v3")
    causal, full = (model_flops(spec, (4096,), mask) for mask in (True, False))
    pairs = 61 * 2 * 128 * (128 + 64 + 128) * 4096 * 3
    assert full - causal == pytest.approx(pairs / 2, rel=1e-3)
    assert full == pytest.approx(6 * (spec.active_parameters - spec.vocab * spec.hidden) + pairs, rel=1e-3)


def brute_force(layer_s, last_s, stages):
    """The least time of the slowest stage, over all ways to cut."""
    best = np.inf
    for cuts in combinations(range(len(layer_s) + 1), stages - 1):
        ends = [0, *cuts, len(layer_s)]
        loads = [sum(layer_s[a:b]) for a, b in pairwise(ends)]
        loads[-1] += last_s
        best = min(best, max(loads))
    return best


def test_whole_layers_are_dealt_so_that_the_slowest_stage_is_as_fast_as_can_be():
    rng = np.random.default_rng(2)
    for _ in range(60):
        stages, layers = int(rng.integers(1, 5)), int(rng.integers(4, 11))
        layer_s, last_s = rng.integers(1, 6, layers).astype(float).tolist(), float(rng.integers(0, 9))
        sizes = dealt(layer_s, last_s, stages)
        assert len(sizes) == stages and sum(sizes) == layers
        ends = np.cumsum([0, *sizes])
        loads = [sum(layer_s[a:b]) for a, b in pairwise(ends)]
        loads[-1] += last_s
        assert max(loads) <= 1.04 * brute_force(layer_s, last_s, stages)


def test_sixty_one_equal_layers_on_sixteen_stages_fill_the_fullest_with_four():
    assert max(dealt([1.0] * 61, 3.2, 16)) == 4
    assert dealt([1.0] * 61, 3.2, 16)[-1] == 1
    assert sorted(dealt([1.0] * 61, 0.0, 16)) == [3] * 3 + [4] * 13
    assert dealt([1.0] * 5, 0.0, 1) == (5,)


def costs(stages, pair=True):
    alone = Chunk(2, Passes(2.0, 4.0, 1.0), 10.0, 8.0)
    both = Chunk(2, Passes(5.0), 10.0, 1.0) if pair else None
    return StageCosts(stages, alone, both, Passes(1, 2, 3), Passes(10, 20, 30), Passes(100, 200, 300))


def test_a_task_takes_the_parts_of_its_stage():
    made = costs([Stage(4, 1), Stage(2, 0, 1, 1)])
    assert made.seconds((Pass("forward", 0, 0),)) == 2 * 2 + 1
    assert made.seconds((Pass("input", 1, 0),)) == 4 + 20 + 200
    assert made.seconds((Pass("weights", 1, 0),)) == 1 + 30 + 300
    assert made.seconds((Pass("backward", 0, 0),)) == 2 * 5 + 5
    # Two of the four layers find a partner, the others and what is no MoE layer run alone.
    assert made.seconds((Pass("forward", 0, 0), Pass("backward", 1, 0))) == 5 + (2 + 1) + (50 + 500)
    assert made.chunks["pair"] == 1
    assert made.whole(Stage(4)) == 2 * 5 and costs([], pair=False).whole(Stage(4)) == 2 * 7


def test_a_collective_moves_all_but_its_own_part_through_each_port():
    fabric = load_topology("h800-8x8-rail")
    nic, nvlink = 50e9, 200e9
    assert (port_rate(fabric, "nic"), port_rate(fabric, "nvlink")) == (nic, nvlink)
    assert collective_seconds(fabric, 1e9, 8, 8) == pytest.approx(7 / 8 * 1e9 / nvlink)
    assert collective_seconds(fabric, 1e9, 2, 1) == pytest.approx(1 / 2 * 1e9 / nic)
    # Eight ranks of a node share what leaves it, so that their NVLink ports are busier than the NICs; two are not.
    assert collective_seconds(fabric, 1e9, 128, 8) == pytest.approx(127 / 128 * 1e9 / nvlink)
    assert collective_seconds(fabric, 1e9, 32, 2) == pytest.approx(15 / 16 * 1e9 / 2 / nic)
    assert collective_seconds(fabric, 1e9, 1, 1) == 0
