"""Objectives and the answers that a sweep gives to them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.scenario import parse_objective
from moesim.sweeps.answers import answer, pareto
from moesim.sweeps.space import space_of


def test_an_objective_is_a_number_and_limits():
    objective = parse_objective("layer_time_s where gate_mass_lost < 1% and rank_load_max_over_mean <= 1.3")
    assert (objective.key, objective.larger_is_better) == ("layer_time_s", False)
    assert [(limit.key, limit.operator, limit.limit) for limit in objective.limits] == [
        ("gate_mass_lost", "<", 0.01),
        ("rank_load_max_over_mean", "<=", 1.3),
    ]
    assert objective.meets({"gate_mass_lost": 0.0, "rank_load_max_over_mean": 1.3})
    assert not objective.meets({"gate_mass_lost": None, "rank_load_max_over_mean": 1.0})


def test_a_number_may_be_made_large():
    objective = parse_objective("max dispatch_busbw_bytes_per_s where layer_time_s < 2ms")
    assert objective.cost({"dispatch_busbw_bytes_per_s": 5.0}) == -5.0
    assert objective.cost({"dispatch_busbw_bytes_per_s": None}) is None
    assert objective.limits[0].limit == 0.002


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer_tme_s", "did you mean 'layer_time_s'"),
        ("layer_time_s where", "not an objective"),
        ("layer_time_s gate_mass_lost < 1", "not an objective"),
        ("layer_time_s where gate_mass_lost", "not a threshold"),
        ("layer_time_s where layer_time_s < 2", "unit"),
        ("min", "no number 'min'"),
        ("", "not an objective"),
        (3, "not an objective"),
    ],
)
def test_what_is_no_objective_is_refused(text, message):
    with pytest.raises(InputError) as refused:
        parse_objective(text)
    assert message in str(refused.value)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=30))
def test_the_front_holds_exactly_the_rows_that_no_other_beats(rows):
    def beats(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    unbeaten = [i for i, row in enumerate(rows) if not any(beats(other, row) for other in rows)]
    assert pareto(rows) == [i for i in unbeaten if rows[i] not in rows[:i]]


def table(space, layer, lost, imbalance, status=None):
    n = len(space)
    return pa.table(
        {
            "point": list(range(n)),
            "status": status or ["ok"] * n,
            "layer_time_s": pa.array(layer, pa.float64()),
            "gate_mass_lost": pa.array(lost, pa.float64()),
            "rank_load_max_over_mean": pa.array(imbalance, pa.float64()),
        }
    )


SPACE = space_of(None, {"routing.top_k": [2, 4], "routing.top_groups": [1, 2, 3]})


def test_the_best_point_is_the_fastest_that_keeps_the_limits():
    times, lost = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.3, 0.009, 0.0, 0.02, 0.0, 0.0]
    points = table(SPACE, times, lost, [1.0] * 6)
    assert answer(SPACE, parse_objective("layer_time_s"), points).best == 0
    found = answer(SPACE, parse_objective("layer_time_s where gate_mass_lost < 0.01"), points)
    assert (found.best, found.meeting) == (1, 4)
    assert found.front == (1, 2)  # 4 and 5 lose nothing more and take longer
    assert answer(SPACE, parse_objective("max layer_time_s"), points).best == 5
    assert answer(SPACE, parse_objective("layer_time_s where layer_time_s < 1us"), points).best is None


def test_points_that_failed_have_no_say():
    points = table(
        SPACE, [None, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0] * 6, [1.0] * 6, ["failed", "ok", "ok", "ok", "ok", "impossible"]
    )
    found = answer(SPACE, parse_objective("layer_time_s"), points)
    assert (found.best, found.meeting) == (1, 4)


def test_the_effect_of_an_axis_is_told_at_the_best_point_and_over_all():
    # rows: K = 2, 4; columns: M = 1, 2, 3
    times = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 9.0]])
    found = answer(SPACE, parse_objective("layer_time_s"), table(SPACE, times.ravel(), [0.0] * 6, [1.0] * 6))
    by_axis = {effect.axis: effect for effect in found.effects}
    m, k = by_axis["routing.top_groups"], by_axis["routing.top_k"]
    assert (m.best, m.least, m.most, m.at_best) == ((1,), (1,), (3,), pytest.approx(4 / 1 - 1))
    assert m.marginal == pytest.approx(6.5 / 2 - 1)  # medians of the columns: 2, 2.5, 6.5
    assert (k.best, k.least, k.most, k.at_best) == ((2,), (2,), (4,), pytest.approx(3 / 1 - 1))
    assert k.marginal == pytest.approx(3 / 2 - 1)
    assert [effect.axis for effect in found.effects] == ["routing.top_groups", "routing.top_k"]


def test_an_axis_of_one_value_has_no_effect_to_tell():
    space = space_of(None, {"routing.top_k": [2], "seed": [0, 1]})
    found = answer(space, parse_objective("layer_time_s"), table(space, [1.0, 2.0], [None, None], [1.0, 1.0]))
    alone = next(effect for effect in found.effects if effect.axis == "routing.top_k")
    assert (alone.least, alone.most, alone.at_best, alone.marginal) == ((2,), (2,), None, None)
    assert found.front == (0,)  # what does not apply trades against nothing
