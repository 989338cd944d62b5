import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.routing import RouterSpec, gate_mass_lost, route, scores
from tests.reference import routing as reference


def test_a_device_limit_loses_the_affinity_that_lay_elsewhere():
    # Affinities 8, 2 | 4, 1 of 15: unrestricted 8 + 4, on the best device 8 + 2.
    logits = np.log([[8.0, 2.0, 4.0, 1.0]])
    spec = RouterSpec("v2", 4, 2, n_groups=2, top_groups=1)
    ids = route(logits, spec).expert_ids
    assert gate_mass_lost(logits, spec, ids) == pytest.approx(1 - 10 / 12, rel=1e-14)


def test_a_dropped_copy_is_lost_with_its_affinity():
    logits = np.log([[8.0, 2.0, 4.0, 1.0]])
    assert gate_mass_lost(logits, RouterSpec("v1", 4, 2), [[0, -1]]) == pytest.approx(4 / 12, rel=1e-14)
    assert gate_mass_lost(logits, RouterSpec("v1", 4, 2), [[-1, -1]]).tolist() == [1.0]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["softmax", "sigmoid"]), st.sampled_from([1.0, 8.0]))
def test_the_mass_lost_is_that_of_the_plain_sums(seed, score, spread):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(8, 12)) * spread).astype(np.float32)
    spec = RouterSpec("v3", 12, 4, n_groups=4, top_groups=2, score=score)
    ids = route(logits, spec, rng.normal(size=12)).expert_ids
    lost = gate_mass_lost(logits, spec, ids)
    assert (lost >= 0).all()
    for t, row in enumerate(logits):
        assert lost[t] == pytest.approx(reference.gate_mass_lost(row, ids[t], score), abs=1e-12)


@pytest.mark.parametrize("spread", [1.0, 100.0, 2000.0])
@pytest.mark.parametrize("kind", ["v1", "v3"])
def test_the_unrestricted_selection_loses_exactly_nothing(kind, spread, monkeypatch):
    monkeypatch.setattr(scores, "LOGITS_PER_BLOCK", 200)
    logits = np.round(np.random.default_rng(2).normal(size=(40, 16)), 1).astype(np.float16) * spread
    spec = RouterSpec(kind, 16, 4)
    assert (gate_mass_lost(logits, spec, route(logits, spec).expert_ids[:, ::-1]) == 0).all()


def test_sigmoids_that_underflow_lose_what_their_limit_the_softmax_loses():
    logits = np.log([[8.0, 2.0, 4.0, 1.0]]) - 900
    spec = RouterSpec("v3", 4, 2)
    assert gate_mass_lost(logits, spec, [[0, 1]]) == pytest.approx(1 - 10 / 12, rel=1e-11)


@pytest.mark.parametrize("ids", [[[0]], [[0, 4]], [[0, -2]], [[0.0, 1.0]]])
def test_a_selection_that_does_not_fit_the_router_is_refused(ids):
    with pytest.raises(InputError) as error:
        gate_mass_lost(np.zeros((1, 4)), RouterSpec("v1", 4, 2), ids)
    assert error.value.where == "expert_ids"


def test_a_logit_that_is_no_number_names_its_token_in_a_later_block(monkeypatch):
    monkeypatch.setattr(scores, "LOGITS_PER_BLOCK", 8)
    logits = np.zeros((7, 4))
    logits[5, 3] = np.nan
    with pytest.raises(InputError, match="token 5 for expert 3 is nan"):
        gate_mass_lost(logits, RouterSpec("v1", 4, 2), [[0, 1]] * 7)
