"""The tokens of a simulated step: those of the seed, the step and the stage that draws, whatever else is drawn."""

import numpy as np
import pytest

from moesim.layer import build_parts, open_workload
from moesim.workload import synthetic_batch
from tests.run.small import EXPERTS, RANKS, SEQUENCE, TOP_K, scenario

TOKENS, EXPERTS_POPULARITY = 1, 5
"""Stages whose draws must stay what they were: shipped results hang on them."""


def generator(*key):
    return np.random.default_rng(np.random.SeedSequence(7, spawn_key=key))


@pytest.mark.parametrize("step", [0, 3])
def test_tokens_are_drawn_by_seed_stage_and_step_and_popularity_by_seed_and_stage(step):
    batch = open_workload(build_parts(scenario("seed=7", "workload.layers_simulated=2"))).batch(step)
    drawn = synthetic_batch(
        "lognormal",
        sigma=0.8,
        sequence_length=SEQUENCE,
        layers=range(2),
        n_experts=EXPERTS,
        top_k=TOP_K,
        n_ranks=RANKS,
        tokens_per_rank=64,
        rng=generator(TOKENS, step),
        popularity_rng=generator(EXPERTS_POPULARITY),
    )
    assert batch.logits.keys() == {0, 1}
    for layer, logits in drawn.logits.items():
        np.testing.assert_array_equal(batch.logits[layer], logits)
    np.testing.assert_array_equal(batch.token_rank, np.repeat(np.arange(RANKS), 64))
