"""The laws of every routed token: what the router makes keeps them, and each breach is found where it is."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InvariantError
from moesim.layer.token_laws import audit_tokens
from moesim.routing import RouterSpec, route


@cache
def made(n_experts=64, top_k=8, n_groups=8, top_groups=4, tokens=20_000, seed=0, kind="v3"):
    spec = RouterSpec(kind, n_experts=n_experts, top_k=top_k, n_groups=n_groups, top_groups=top_groups)
    logits = np.random.default_rng(seed).normal(size=(tokens, n_experts))
    answer = route(logits, spec)
    return answer.expert_ids, answer.gates, spec


def routed(**shape):
    ids, gates, spec = made(**shape)
    return ids.copy(), gates.copy(), spec


@given(
    st.sampled_from(("v1", "v2", "v3")), st.integers(1, 10), st.integers(1, 12), st.integers(0, 99), st.booleans(),
    st.integers(1, 100),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_what_a_router_selects_keeps_the_laws(kind, top_k, n_groups, seed, double, top_groups):
    n_experts = n_groups * 11
    top_groups = min(top_groups, n_groups)
    spec = RouterSpec(kind, n_experts=n_experts, top_k=top_k, n_groups=n_groups, top_groups=top_groups)
    logits = np.random.default_rng(seed).normal(scale=4, size=(50, n_experts)).astype("f8" if double else "f4")
    answer = route(logits, spec)
    audit_tokens("here", answer.expert_ids, answer.gates, spec)


@pytest.mark.parametrize("token", [0, 8191, 8192, 19_999])
@pytest.mark.parametrize(
    ("law", "breaks"),
    [
        ("selects an expert twice", lambda ids, gates, t: ids.__setitem__((t, 7), ids[t, 0])),
        ("selects an expert that is not there", lambda ids, gates, t: ids.__setitem__((t, 3), 64)),
        ("reaches more than 4 groups", lambda ids, gates, t: ids.__setitem__(t, np.arange(8) * 8)),
        ("has a gate that is none", lambda ids, gates, t: gates.__setitem__((t, 1), -1e-9)),
        ("has a gate that is none", lambda ids, gates, t: gates.__setitem__((t, 1), np.nan)),
        ("has gates that do not sum to 1", lambda ids, gates, t: gates.__setitem__((t, 1), gates[t, 1] * (1 + 1e-10))),
    ],
)
def test_a_breach_is_named_with_its_token(token, law, breaks):
    ids, gates, spec = routed()
    audit_tokens("layer 3", ids, gates, spec)
    breaks(ids, gates, token)
    with pytest.raises(InvariantError, match=f"layer 3: token {token} {law}"):
        audit_tokens("layer 3", ids, gates, spec)


def test_many_experts_of_a_token_and_many_groups_are_checked_too():
    ids, gates, spec = routed(n_experts=300, top_k=40, n_groups=100, top_groups=60, tokens=30)
    audit_tokens("here", ids, gates, spec)
    assert max(len({int(e) // 3 for e in row}) for row in ids) > 20
    ids[29, 39] = ids[29, 0]
    with pytest.raises(InvariantError, match="token 29 selects an expert twice"):
        audit_tokens("here", ids, gates, spec)
    ids, gates, spec = routed(n_experts=300, top_k=40, n_groups=100, top_groups=30, tokens=30)
    ids[7] = np.arange(40) * 3
    with pytest.raises(InvariantError, match="token 7 reaches more than 30 groups"):
        audit_tokens("here", ids, gates, spec)


def test_experts_that_the_workload_gives_may_be_fewer_and_anywhere_but_never_twice():
    spec = RouterSpec("v3", n_experts=64, top_k=8, n_groups=8, top_groups=4)
    ids = np.tile(np.arange(0, 64, 8, dtype=np.int32), (10, 1))
    ids[3, 4:] = -1
    audit_tokens("here", ids, None, spec)
    ids[3, 1] = 0
    with pytest.raises(InvariantError, match="token 3 selects an expert twice"):
        audit_tokens("here", ids, None, spec)


def test_a_gate_of_nothing_is_a_gate():
    spec = RouterSpec("v3", n_experts=8, top_k=2)
    audit_tokens("here", np.array([[3, 1]], np.int32), np.array([[1.0, 0.0]]), spec)
