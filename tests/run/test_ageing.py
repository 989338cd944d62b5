"""How fast a placement ages: not where the load stays, at once where it changes; short recordings do not tell."""

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


def recorded(*hot):
    """Selections whose hot experts [8] change after equal parts of the recording."""
    rng, parts = np.random.default_rng(3), []
    for its in hot:
        share = np.full(EXPERTS, 0.3)
        share[its] = 4.0
        parts.append(selections([share / share.sum()] * (TOKENS // len(hot)), rng))
    return np.concatenate(parts)


def told(ids):
    return ageing([ids], EXPERTS, [contiguous(EXPERTS, RANKS)], made)


def test_a_placement_stays_as_good_where_the_load_stays():
    found = told(recorded(np.arange(8)))
    assert found.window_tokens == 256 and found.lasts is None
    curves = {name: np.mean(curve) for name, curve in found.curves.items()}
    assert curves["itself"] <= curves["fresh"] < curves["none"]
    assert curves["stale"] == pytest.approx(curves["fresh"], rel=0.03)
    assert "keeps" in found.said


def test_it_lasts_until_the_load_changes():
    first = recorded(np.arange(8))[:256]
    learnt = made(np.bincount(first.ravel(), minlength=EXPERTS), first)
    # From window 10 on the experts that the first window put on two ranks are the hot ones.
    found = told(recorded(np.arange(8), learnt.slot_expert[learnt.slot_rank < 2]))
    assert found.lasts is not None and 7 <= found.lasts <= 10
    stale, fresh = (np.array(found.curves[name]) for name in ("stale", "fresh"))
    assert stale[:9].mean() == pytest.approx(fresh[:9].mean(), rel=0.05)
    assert stale[11:].mean() > fresh[11:].mean() * 2
    assert "half of that is lost from window" in found.said


def test_few_tokens_are_too_few_to_say():
    found = told(recorded(np.arange(8))[: LEAST_WINDOWS * LEAST_TOKENS - 1])
    assert found.window_tokens == 0 and not found.curves
    assert found.said.endswith("not known: 5,119 tokens were recorded, 20 windows of 256 are needed.")
