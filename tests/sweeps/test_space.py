"""Axes and the points that they span."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.scenario.sweep_section import RandomPoints, Sweep
from moesim.sweeps.space import Axis, Space, parse_axis_option, parse_together_option, space_of


def points(space):
    return [space.values(point) for point in range(len(space))]


def test_a_grid_holds_every_combination_once_with_the_last_axis_varying_fastest():
    space = space_of(None, {"routing.top_k": [2, 4], "routing.top_groups": "1..3"})
    assert [tuple(values.values()) for values in points(space)] == [(2, 1), (2, 2), (2, 3), (4, 1), (4, 2), (4, 3)]


def test_keys_of_one_axis_move_together():
    space = space_of(None, {"seed": [0, 1]}, [{"model.n_experts": [8, 16], "model.expert_hidden": [512, 256]}])
    assert points(space) == [
        {"seed": seed, "model.n_experts": experts, "model.expert_hidden": 4096 // experts}
        for seed in (0, 1)
        for experts in (8, 16)
    ]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_places_and_values_agree_at_every_point(lengths):
    space = Space(tuple(Axis((f"k{i}",), tuple((v,) for v in range(n))) for i, n in enumerate(lengths)))
    seen = {space.places(point) for point in range(len(space))}
    assert len(seen) == len(space) == space.combinations
    assert all(tuple(space.values(point).values()) == space.places(point) for point in range(len(space)))


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_a_draw_takes_so_many_different_combinations_and_the_same_ones_for_the_same_seed(seed, number):
    axes = (Axis(("a",), tuple((v,) for v in range(6))), Axis(("b",), tuple((v,) for v in range(5))))
    space, again = Space(axes, number, seed), Space(axes, number, seed)
    drawn = [space.places(point) for point in range(len(space))]
    assert len(drawn) == len(set(drawn)) == number
    assert drawn == sorted(drawn) == [again.places(point) for point in range(number)]


def test_draws_of_different_seeds_differ():
    axes = (Axis(("a",), tuple((v,) for v in range(100))),)
    one, other = (Space(axes, 10, seed) for seed in (0, 1))
    assert [one.values(p) for p in range(10)] != [other.values(p) for p in range(10)]


def test_the_command_line_replaces_an_axis_of_the_block_and_adds_others():
    block = Sweep(axes={"routing.top_k": [2, 4], "seed": "0..3"})
    space = space_of(block, {"seed": [7], "routing.top_groups": [1, 2]})
    assert space.keys == ("routing.top_k", "seed", "routing.top_groups")
    assert {values["seed"] for values in points(space)} == {7}


def test_the_block_alone_spans_the_points_that_it_says():
    block = Sweep(zip=[{"model.n_experts": [8, 16], "routing.top_k": [1, 2]}], random=RandomPoints(points=1))
    assert len(space_of(block)) == 1
    assert space_of(block).combinations == 2


def test_an_option_is_read_as_yaml_values_or_a_range():
    assert parse_axis_option("routing.top_k=2,4,8") == ("routing.top_k", (2, 4, 8))
    assert parse_axis_option("routing.top_groups = 1..3") == ("routing.top_groups", (1, 2, 3))
    assert parse_axis_option("cluster.nic_bandwidth=100Gb/s,null") == ("cluster.nic_bandwidth", ("100Gb/s", None))
    assert parse_together_option("model.n_experts=8,16; routing.top_k=1,2") == {
        "model.n_experts": (8, 16),
        "routing.top_k": (1, 2),
    }


def test_a_path_on_an_axis_starts_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = space_of(None, {"workload.counts": ["a.csv", "/b.csv"]})
    assert [values["workload.counts"] for values in points(space)] == [str(tmp_path / "a.csv"), "/b.csv"]


WRONG = {
    "no equals sign": (lambda: parse_axis_option("routing.top_k"), "is not an axis"),
    "no value": (lambda: parse_axis_option("seed="), "an axis holds 1 to"),
    "a range backwards": (lambda: parse_axis_option("seed=3..1"), "holds no value"),
    "an unknown key": (lambda: space_of(None, {"routing.topk": [1]}), "did you mean 'top_k'"),
    "a key of the sweep itself": (lambda: space_of(None, {"sweep.objective": ["a"]}), "no key"),
    "a key on two axes": (lambda: space_of(None, {"seed": [1]}, [{"seed": [2]}]), "on two axes"),
    "lengths that differ": (lambda: space_of(None, {}, [{"seed": [1], "name": ["a", "b"]}]), "seed: 1, name: 2"),
    "an empty group": (lambda: space_of(None, {}, [{}]), "as many values each"),
    "nothing": (lambda: space_of(None), "nothing to sweep over"),
    "more drawn than there are": (
        lambda: space_of(None, {"seed": [1, 2]}, random=RandomPoints(points=3)),
        "3 points of only 2",
    ),
    "too many": (lambda: space_of(None, {"seed": "0..999", "routing.top_k": "1..101"}), "101,000 points"),
}


@pytest.mark.parametrize("name", WRONG)
def test_axes_that_make_no_sense_are_refused(name):
    call, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        call()
