import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.routing import RouterSpec, affinity, assign, groups_of, route
from tests.reference.routing import affinities, route_token

QUICK = settings(deadline=None, max_examples=60, derandomize=True)


@st.composite
def batches(draw):
    """Return a spec, logits and a bias; coarse logits make ties common, large ones saturate the sigmoid."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_experts = draw(st.integers(1, 20))
    n_groups = draw(st.integers(1, n_experts))
    group_of_expert = None
    if draw(st.booleans()):
        group_of_expert = rng.permutation(np.arange(n_experts) % n_groups)
        extra = rng.integers(0, n_groups, n_experts)
        spare = np.flatnonzero(np.bincount(group_of_expert)[group_of_expert] > 1)
        if len(spare) and n_experts > 2 * n_groups:
            group_of_expert[spare[0]] = extra[spare[0]]
    sizes = np.sort(
        np.bincount(group_of_expert)
        if group_of_expert is not None
        else [len(part) for part in np.array_split(range(n_experts), n_groups)]
    )
    top_groups = draw(st.integers(1, n_groups))
    spec = RouterSpec(
        kind=draw(st.sampled_from(["v1", "v2", "v3"])),
        n_experts=n_experts,
        top_k=draw(st.integers(1, int(sizes[:top_groups].sum()))),
        n_groups=n_groups,
        top_groups=top_groups,
        score=draw(st.sampled_from([None, "softmax", "sigmoid"])),
        group_score=draw(st.sampled_from([None, "max", "sum", "top2", "topk_over_m"])),
        normalize=draw(st.sampled_from([None, True, False])),
        scale=draw(st.sampled_from([None, 2.5])),
        group_of_expert=group_of_expert,
    )
    logits = rng.normal(size=(draw(st.integers(1, 6)), n_experts)) * draw(st.sampled_from([1.0, 3.0, 60.0]))
    if draw(st.booleans()):
        logits = np.round(logits)
    logits = logits.astype(draw(st.sampled_from([np.float16, np.float32, np.float64])))
    bias = draw(st.sampled_from([None, 0.0, 0.1, 3.0]))
    if bias is not None:
        bias = np.round(rng.normal(size=n_experts), 1) * bias - bias
    return spec, logits, bias


@QUICK
@given(batches())
def test_the_router_selects_and_gates_as_the_papers_say(batch):
    spec, logits, bias = batch
    got = route(logits, spec, bias)
    assert got.expert_ids.dtype == np.int32
    assert got.gates.dtype == (np.float64 if logits.dtype == np.float64 else np.float32)
    for t, row in enumerate(logits):
        ids, gates = route_token(
            row, spec.top_k, groups_of(spec).tolist(), spec.top_groups, spec.score, spec.group_score,
            spec.normalize, spec.scale, None if bias is None else bias.tolist(),
        )  # fmt: skip
        assert got.expert_ids[t].tolist() == ids
        rel = 1e-12 if logits.dtype == np.float64 else 1e-6
        assert got.gates[t].tolist() == pytest.approx(gates, rel=rel, abs=1e-38)


@QUICK
@given(batches())
def test_a_token_goes_to_k_distinct_experts_in_at_most_m_groups(batch):
    spec, logits, bias = batch
    ids = route(logits, spec, bias).expert_ids
    assert ids.shape == (len(logits), spec.top_k)
    for row in ids:
        assert len(set(row.tolist())) == spec.top_k
        assert len(set(groups_of(spec)[row].tolist())) <= spec.top_groups


@QUICK
@given(batches())
def test_normalised_gates_sum_to_the_scale_and_others_are_affinities(batch):
    spec, logits, bias = batch
    a = route(logits.astype(np.float64), spec, bias)
    if spec.normalize:
        assert a.gates.sum(axis=1) == pytest.approx(spec.scale, rel=1e-12)
    else:
        s = np.take_along_axis(affinity(logits, spec), a.expert_ids, axis=1)
        assert a.gates == pytest.approx(spec.scale * s, rel=1e-12, abs=1e-300)


@QUICK
@given(batches(), st.integers(0, 2**32))
def test_renumbering_the_experts_renumbers_the_selection(batch, seed):
    spec, logits, bias = batch
    rng = np.random.default_rng(seed)
    # Distinct values within a token: no ties, which ids would decide.
    logits = np.argsort(rng.random(logits.shape), axis=1) * 0.37 + rng.random(logits.shape) * 0.2
    new = rng.permutation(spec.n_experts)  # expert e becomes new[e]
    old = np.argsort(new)
    renumbered = RouterSpec(
        spec.kind, spec.n_experts, spec.top_k, spec.n_groups, spec.top_groups, spec.score, spec.group_score,
        spec.normalize, spec.scale, groups_of(spec)[old],
    )  # fmt: skip
    before = route(logits, spec, bias)
    after = route(logits[:, old], renumbered, None if bias is None else bias[old])
    assert (new[before.expert_ids] == after.expert_ids).all()
    assert after.gates == pytest.approx(before.gates, rel=1e-12)


def test_two_devices_are_ranked_by_their_best_expert_or_by_their_sum():
    # Best 0.40 and 0.29, sums 0.42 and 0.58.
    logits = np.log([[0.4, 0.01, 0.01, 0.29, 0.28, 0.01]])
    one = {"kind": "v2", "n_experts": 6, "top_k": 2, "n_groups": 2, "top_groups": 1}
    assert route(logits, RouterSpec(**one)).expert_ids.tolist() == [[0, 1]]
    assert route(logits, RouterSpec(**one, group_score="sum")).expert_ids.tolist() == [[3, 4]]
    # Two best 0.41 and 0.40, sums 0.41 and 0.59.
    logits = np.log([[0.4, 0.01, 1e-9, 0.2, 0.2, 0.19]])
    assert route(logits, RouterSpec(**one, group_score="top2")).expert_ids.tolist() == [[0, 1]]
    assert route(logits, RouterSpec(**one, group_score="sum")).expert_ids.tolist() == [[3, 4]]
    # K / M = 2 of the paper.
    assert route(logits, RouterSpec(**one, group_score="topk_over_m")).expert_ids.tolist() == [[0, 1]]


def test_a_group_smaller_than_the_scores_asked_for_gives_what_it_has():
    # Groups {0}, {1, 2}, {3}: sums of the two best sigmoids are 0.73, 0.5 + 0.5 and 0.88.
    logits = np.array([[1.0, 0.0, 0.0, 2.0]])
    spec = RouterSpec("v3", 4, 1, n_groups=3, top_groups=1, group_of_expert=[0, 1, 1, 2])
    assert route(logits, spec).expert_ids.tolist() == [[1]]


def test_v3_without_bias_and_groups_selects_exactly_the_experts_of_v1_even_saturated():
    logits = np.random.default_rng(3).normal(size=(500, 64)) * 200
    v1 = route(logits, RouterSpec("v1", 64, 8)).expert_ids
    for bias in (None, np.zeros(64)):
        assert (route(logits, RouterSpec("v3", 64, 8), bias).expert_ids == v1).all()


def test_masked_groups_stay_out_under_a_bias_that_makes_every_score_negative():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(200, 16))
    spec = RouterSpec("v3", 16, 6, n_groups=4, top_groups=2)
    selected = route(logits, spec, np.full(16, -50.0)).expert_ids
    assert all(len({e // 4 for e in row}) <= 2 for row in selected.tolist())


def test_the_bias_moves_the_selection_and_not_the_gates():
    logits = np.array([[2.0, 1.0, 0.0, -1.0]])
    spec = RouterSpec("v3", 4, 2)
    a = route(logits, spec, np.array([0.0, 0.0, 0.0, 1.0]))
    assert a.expert_ids.tolist() == [[3, 0]]
    s = 1 / (1 + np.exp(-np.array([-1.0, 2.0])))
    assert a.gates[0] == pytest.approx(s / s.sum(), rel=1e-14)


@QUICK
@given(st.integers(0, 2**32), st.floats(0, 0.5))
def test_raising_one_bias_never_sends_tokens_away_from_that_expert(seed, step):
    rng = np.random.default_rng(seed)
    logits, bias = rng.normal(size=(20, 12)), rng.normal(size=12) * 0.1
    for spec in (RouterSpec("v3", 12, 3), RouterSpec("v3", 12, 3, n_groups=4, top_groups=2)):
        before = (route(logits, spec, bias).expert_ids == 5).any(axis=1)
        after = (route(logits, spec, bias + step * (np.arange(12) == 5)).expert_ids == 5).any(axis=1)
        assert (after | ~before).all()


@pytest.mark.parametrize("kind", ["v1", "v2", "v3"])
def test_ties_go_to_the_lowest_group_and_the_lowest_expert(kind):
    spec = RouterSpec(kind, 16, 4, n_groups=8, top_groups=3)
    assert route(np.zeros((2, 16), np.float32), spec).expert_ids.tolist() == [[0, 1, 2, 3]] * 2
    assert route(np.zeros((2, 16)), spec, np.full(16, -0.25)).expert_ids.tolist() == [[0, 1, 2, 3]] * 2


def test_gates_of_affinities_too_small_for_a_float_still_sum_to_the_scale():
    logits = np.array([[-800.0, -801.0, -900.0, -1000.0]])
    a = route(logits, RouterSpec("v3", 4, 2, scale=2.5))
    assert a.expert_ids.tolist() == [[0, 1]]
    assert a.gates[0] == pytest.approx(2.5 / (1 + np.exp([-1.0, 1.0])), rel=1e-14)


def test_a_batch_in_pieces_is_the_batch(monkeypatch):
    rng = np.random.default_rng(5)
    logits, bias = rng.normal(size=(37, 16)).astype(np.float16), rng.normal(size=16) * 0.1
    spec = RouterSpec("v3", 16, 4, n_groups=4, top_groups=2)
    whole = route(logits, spec, bias)
    monkeypatch.setattr(assign, "LOGITS_PER_BLOCK", 80)
    pieces = route(logits, spec, bias)
    assert (whole.expert_ids == pieces.expert_ids).all()
    assert (whole.gates == pieces.gates).all()
    logits[23, 7] = np.inf
    with pytest.raises(InputError, match="token 1023 for expert 7 is inf"):
        route(logits, spec, bias, token_offset=1000)


def test_the_type_and_the_strides_of_the_logits_do_not_matter():
    logits = np.random.default_rng(6).normal(size=(30, 24)).astype(np.float16)
    spec = RouterSpec("v2", 24, 4, n_groups=6, top_groups=3)
    wanted = route(logits.astype(np.float64), spec)
    strided = np.asfortranarray(np.repeat(logits, 2, axis=0))[::2]
    for same in (logits, logits.astype(np.float32), strided, logits.tolist()):
        got = route(same, spec)
        assert (got.expert_ids == wanted.expert_ids).all()
        assert got.gates == pytest.approx(wanted.gates, rel=1e-6)
    assert route(np.arange(24)[None, :], spec).expert_ids.tolist() == [[23, 22, 21, 20]]


def test_no_tokens_give_an_empty_assignment():
    a = route(np.empty((0, 16)), RouterSpec("v1", 16, 4))
    assert a.expert_ids.shape == a.gates.shape == (0, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_no_number_names_its_token(bad):
    logits = np.zeros((9, 16), np.float32)
    logits[5, 2] = bad
    for call in (route, affinity):
        with pytest.raises(InputError, match="token 5 for expert 2"):
            call(logits, RouterSpec("v3", 16, 4))


@pytest.mark.parametrize(
    ("logits", "bias", "where"),
    [
        (np.zeros((4, 15)), None, "logits"),
        (np.zeros(16), None, "logits"),
        (np.zeros((4, 16), complex), None, "logits"),
        (np.zeros((4, 16)), np.zeros(15), "bias"),
        (np.zeros((4, 16)), np.array([0.0] * 15 + [np.nan]), "bias"),
    ],
)
def test_arrays_of_the_wrong_shape_or_type_are_refused(logits, bias, where):
    with pytest.raises(InputError) as error:
        route(logits, RouterSpec("v3", 16, 4), bias)
    assert error.value.where == where


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_affinities_are_those_of_the_papers(score):
    logits = np.random.default_rng(8).normal(size=(6, 10)) * 30
    got = affinity(logits, RouterSpec("v1", 10, 2, score=score))
    for row, wanted in zip(got, logits, strict=True):
        assert row == pytest.approx(affinities(wanted.tolist(), score), rel=1e-13)
