"""A text and a model small enough to train in a second."""

import numpy as np
import pytest


@pytest.fixture
def corpus():
    from moesim.record.text import DOMAINS, HELD_OUT, Corpus

    rng = np.random.default_rng(0)

    def text(size):
        # Each domain has an alphabet and a rhythm of its own: there is something to learn.
        return {
            name: ((np.arange(size) % (3 + number)) * 7 + 40 * number + rng.integers(0, 2, size)).astype(np.uint8)
            for number, name in enumerate(DOMAINS)
        }

    train = {name: data for name, data in text(20_000).items() if name not in HELD_OUT}
    return Corpus(train=train, evaluation=text(8_000))


@pytest.fixture
def sizes():
    from moesim.record.model import Sizes

    return Sizes(
        layers=3, hidden=16, dense_hidden=32, heads=2, nope_dim=4, rope_dim=4, value_dim=8, kv_lora_rank=8,
        q_lora_rank=8, n_experts=32, expert_hidden=8,
    )  # fmt: skip
