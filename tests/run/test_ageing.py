"""How fast a placement ages: nothing where the load stays, half of it where the load changes, and no word where short."""

import numpy as np
import pytest

from moesim.placement import contiguous, place
from moesim.run.ageing import LEAST_TOKENS, LEAST_WINDOWS, ageing

EXPERTS, RANKS, TOKENS = 32, 8, 20 * 256


def selections(share, rng):
    """One expert for each token, drawn with a share each, [tokens, 1]."""
    return np.array([rng.choice(EXPERTS, p=row) for row in share], np.int32)[:, None]


def made(load, _):
    return place("greedy", load=load, n_experts=EXPERTS, n_slots=EXPERTS, n_ranks=RANKS, n_nodes=1)


def told(hot):
    """Ageing where ``hot`` [tokens] says which eight experts get most tokens at each time."""
    rng = np.random.default_rng(3)
    share = np.full((len(hot), EXPERTS), 0.3)
    for token, first in enumerate(hot):
        share[token, (first + np.arange(8)) % EXPERTS] = 4.0
    return ageing(
        [selections(share / share.sum(axis=1, keepdims=True), rng)], EXPERTS, [contiguous(EXPERTS, RANKS)], made
    )


def test_a_placement_stays_as_good_where_the_load_stays():
    found = told(np.zeros(TOKENS, int))
    assert found.window_tokens == 256 and found.lasts is None
    curves = {name: np.mean(curve) for name, curve in found.curves.items()}
    assert curves["itself"] <= curves["fresh"] < curves["none"]
    assert curves["stale"] == pytest.approx(curves["fresh"], rel=0.03)
    assert "keeps" in found.said


def test_it_lasts_until_the_load_changes():
    # Other experts are hot from window 10 on, spread over the ranks so that the old placement packs them together.
    hot = np.where(np.arange(TOKENS) < 10 * 256, 0, 16)
    found = told(hot)
    assert found.lasts is not None and 7 <= found.lasts <= 10
    stale, fresh = (np.array(found.curves[name]) for name in ("stale", "fresh"))
    assert stale[:9].mean() == pytest.approx(fresh[:9].mean(), rel=0.05)
    assert stale[11:].mean() > fresh[11:].mean() * 1.2
    assert "lost half" in found.said


def test_few_tokens_are_too_few_to_say():
    found = told(np.zeros(LEAST_WINDOWS * LEAST_TOKENS - 1, int))
    assert found.window_tokens == 0 and not found.curves
    assert found.said == "too short to say: 5,119 tokens were recorded, 20 windows of 256 are needed."
