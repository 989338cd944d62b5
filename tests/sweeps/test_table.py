"""The table of a sweep: columns that can be plotted, the same bytes for the same points."""

from moesim.sweeps.journal import Outcome
from moesim.sweeps.points_table import arrow_table, axis_column, parquet_bytes
from moesim.sweeps.space import space_of


def test_quantities_become_numbers_in_si_units_where_all_are():
    assert axis_column(["100Gb/s", "50GB/s", None]) == [12.5e9, 50e9, None]
    assert axis_column(["2us", 0.5]) == [2e-6, 0.5]
    assert axis_column([1, 2]) == [1, 2]
    assert axis_column([1, 2.5]) == [1.0, 2.5]
    assert axis_column([True, False]) == [True, False]
    assert axis_column(["last", 100]) == ["last", "100"]
    assert axis_column([[1, 2], {"kind": "v1"}]) == ["[1, 2]", '{"kind": "v1"}']


def test_a_row_has_point_axes_status_error_and_numbers():
    space = space_of(None, {"routing.top_k": [2, 4], "cluster.nic_bandwidth": ["100Gb/s", None]})
    summary = {"layer_time_s": 1e-3, "ranks": 8, "bottleneck": "compute", "counterfactual": False, "seed": 5}
    rows = arrow_table(space, [(0, Outcome("ok", None, summary)), (3, Outcome("failed", "why"))]).to_pylist()
    assert rows[0]["point"] == 0
    assert (rows[0]["routing.top_k"], rows[0]["cluster.nic_bandwidth"]) == (2, 12.5e9)
    assert (rows[0]["status"], rows[0]["error"], rows[0]["layer_time_s"]) == ("ok", None, 1e-3)
    assert (rows[0]["ranks"], rows[0]["bottleneck"], rows[0]["counterfactual"], rows[0]["seed"]) == (
        8,
        "compute",
        False,
        5,
    )
    assert rows[0]["gate_mass_lost"] is None
    assert (rows[1]["point"], rows[1]["routing.top_k"], rows[1]["cluster.nic_bandwidth"]) == (3, 4, None)
    assert (rows[1]["status"], rows[1]["error"], rows[1]["layer_time_s"]) == ("failed", "why", None)


def test_an_axis_named_like_a_number_of_the_summary_stands_once():
    space = space_of(None, {"seed": [7]})
    table = arrow_table(space, [(0, Outcome("ok", None, {"seed": 7}))])
    assert table.column_names.count("seed") == 1
    assert table["seed"].to_pylist() == [7]


def test_equal_points_give_equal_bytes():
    space = space_of(None, {"seed": [0, 1]})
    outcomes = [(point, Outcome("ok", None, {"layer_time_s": 0.1 * point})) for point in range(2)]
    assert parquet_bytes(arrow_table(space, outcomes)) == parquet_bytes(arrow_table(space, iter(outcomes)))
