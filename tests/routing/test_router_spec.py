import dataclasses
import pickle

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.routing import RouterSpec, groups_of


@pytest.mark.parametrize(
    ("kind", "score", "group_score", "normalize"),
    [("v1", "softmax", "max", False), ("v2", "softmax", "max", False), ("v3", "sigmoid", "top2", True)],
)
def test_a_kind_is_a_preset_of_the_knobs(kind, score, group_score, normalize):
    spec = RouterSpec(kind, n_experts=64, top_k=8)
    assert (spec.score, spec.group_score, spec.normalize, spec.scale) == (score, group_score, normalize, 1.0)


def test_an_explicit_knob_overrides_its_preset():
    spec = RouterSpec("v3", 64, 8, score="softmax", group_score="sum", normalize=False, scale=2.5)
    assert (spec.score, spec.group_score, spec.normalize, spec.scale) == ("softmax", "sum", False, 2.5)


def test_a_spec_survives_replace_and_pickle_and_is_hashable():
    spec = RouterSpec("v2", 160, 6, n_groups=8, top_groups=3, group_of_expert=np.arange(160) % 8)
    assert dataclasses.replace(spec, top_groups=4).top_groups == 4
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301
    assert hash(spec) == hash(dataclasses.replace(spec))


def test_258_experts_in_64_groups_are_two_of_five_and_sixty_two_of_four():
    group = groups_of(RouterSpec("v2", 258, 8, n_groups=64, top_groups=4))
    assert group.dtype == np.int32
    assert np.bincount(group).tolist() == [5, 5] + [4] * 62
    expected = np.concatenate([np.full(len(part), g) for g, part in enumerate(np.array_split(range(258), 64))])
    assert (group == expected).all()


def test_groups_given_per_expert_are_kept():
    spec = RouterSpec("v2", 6, 2, n_groups=3, top_groups=1, group_of_expert=[2, 1, 0, 0, 1, 2])
    assert groups_of(spec).tolist() == [2, 1, 0, 0, 1, 2]


@pytest.mark.parametrize(("group_score", "count"), [("max", 1), ("sum", 256), ("top2", 2), ("topk_over_m", 3)])
def test_a_group_is_ranked_by_as_many_scores_as_its_name_says(group_score, count):
    spec = RouterSpec("v3", 256, 8, n_groups=16, top_groups=2, group_score=group_score)
    assert spec.scores_per_group == (4 if group_score == "topk_over_m" else count)


def test_k_over_m_below_one_still_ranks_groups_by_one_score():
    spec = RouterSpec("v3", 64, 2, n_groups=8, top_groups=4, group_score="topk_over_m")
    assert spec.scores_per_group == 1


def test_groups_too_small_for_top_k_are_refused_with_the_figures():
    with pytest.raises(InputError, match=r"the 1 smallest of 64 groups hold 4 of 258 experts.*top_k = 8"):
        RouterSpec("v2", 258, 8, n_groups=64, top_groups=1)
    RouterSpec("v2", 258, 8, n_groups=64, top_groups=2)
    RouterSpec("v2", 258, 8, n_groups=64, top_groups=64)


@pytest.mark.parametrize(
    ("knobs", "field"),
    [
        ({"kind": "v4"}, "routing.kind"),
        ({"score": "relu"}, "routing.score"),
        ({"group_score": "mean"}, "routing.group_score"),
        ({"n_experts": 0}, "routing.n_experts"),
        ({"n_experts": 16.0}, "routing.n_experts"),
        ({"top_k": 17}, "routing.top_k"),
        ({"top_k": True}, "routing.top_k"),
        ({"n_groups": 17}, "routing.n_groups"),
        ({"n_groups": 4, "top_groups": 5}, "routing.top_groups"),
        ({"scale": 0.0}, "routing.scale"),
        ({"scale": float("nan")}, "routing.scale"),
        ({"scale": "2"}, "routing.scale"),
        ({"n_groups": 2, "group_of_expert": [0, 1]}, "routing.group_of_expert"),
        ({"n_groups": 2, "group_of_expert": np.arange(16.0)}, "routing.group_of_expert"),
        ({"n_groups": 2, "group_of_expert": list(range(16))}, "routing.group_of_expert"),
        ({"n_groups": 3, "group_of_expert": [0, 2] * 8}, "routing.group_of_expert"),
    ],
)
def test_a_knob_out_of_bounds_names_its_field(knobs, field):
    with pytest.raises(InputError) as error:
        RouterSpec(**{"kind": "v2", "n_experts": 16, "top_k": 4, **knobs})
    assert error.value.where == field
    assert error.value.fix
