"""Result folders from anywhere: what is not as moesim writes it is refused in one line, whatever is made of it."""

import gzip
import json
import shutil
import tracemalloc

import numpy as np
import pytest

import moesim
from moesim.errors import InputError
from moesim.results import load_result, made_of, unpacked_trace
from moesim.results.folder_schema import OPTIONAL, TABLES
from tests.run.small import recorded, run, small_recording

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "run"
    run("workload.layers_simulated=2").save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


def refused(folder, *said):
    with pytest.raises(InputError) as caught:
        load_result(folder)
    line = str(caught.value)
    assert "\n" not in line and len(line) <= 500 and "nan" not in line.lower()
    for word in said:
        assert word in line


def change(folder, name, edit):
    content = json.loads((folder / f"{name}.json").read_text())
    edit(content)
    (folder / f"{name}.json").write_text(json.dumps(content))


def test_every_table_of_a_run_has_the_columns_that_are_written_down(tmp_path):
    results = (run(), run("parallel.ep=1", "routing.groups=1", "routing.top_groups=1"))
    for result in (*results, moesim.simulate(recorded(small_recording(tmp_path / "made-up.npz")))):
        known = {**TABLES, **OPTIONAL}
        assert set(result.tables) <= set(known)
        for name in result.tables:
            assert set(known[name]) <= set(result.tables.columns(name)), name


WRONG = [float("nan"), float("inf"), 2**63, 1e31, 10**400, -1.0, "1", None, [1.0], {}, True]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: f"{value!r:.12}")
def test_a_time_of_a_summary_is_a_number_from_0(copy, value):
    change(copy, "summary", lambda content: content["summary"].update(layer_time_s=value))
    refused(copy, "summary.json")


@pytest.mark.parametrize(("key", "value"), [("name", 1), ("bottleneck", None), ("counterfactual", 0), ("tokens", "64")])
def test_a_value_of_another_kind_is_refused(copy, key, value):
    change(copy, "summary", lambda content: content["summary"].update({key: value}))
    refused(copy, key)


def test_numbers_that_are_none_are_refused_wherever_they_stand(copy):
    change(copy, "explanation", lambda content: content["explanation"].update(deep=[{"a": float("nan")}]))
    refused(copy, "explanation.json")


def columns(copy, name):
    table = pq.read_table(copy / f"{name}.parquet")
    return {column: table[column] for column in table.column_names}, table.schema.metadata


def rewrite(copy, name, edit):
    found, metadata = columns(copy, name)
    edit(found)
    pq.write_table(pa.table(found).replace_schema_metadata(metadata), copy / f"{name}.parquet")


def full(value, kind):
    return lambda found: pa.array([value] * len(next(iter(found.values()))), kind)


@pytest.mark.parametrize(
    ("name", "column", "made"),
    [
        ("spans", "start_s", full("early", pa.string())),
        ("spans", "phase", full(1.0, pa.float64())),
        ("spans", "phase", full(None, pa.string())),
        ("spans", "end_s", full(float("nan"), pa.float64())),
        ("links", "utilisation", full(float("inf"), pa.float64())),
        ("links", "wire_bytes", full(1e300, pa.float64())),
        ("ranks", "rank", full(2**40, pa.int64())),
        ("ranks", "rank", full(-2, pa.int64())),
        ("ranks", "node", full(0.5, pa.float64())),
        ("experts", "tokens", full(-1, pa.int64())),
        ("transfers", "copies", full([1], pa.list_(pa.int64()))),
        ("steps", "layer", full(b"0", pa.binary())),
    ],
)
def test_a_column_of_another_kind_or_with_impossible_values_is_refused(copy, name, column, made):
    rewrite(copy, name, lambda found: found.update({column: made(found)}))
    refused(copy, f"{name}.parquet", column)


def test_a_table_without_a_column_is_refused_and_a_file_that_is_none_of_ours_is_not_read(copy):
    (copy / "zzz.parquet").write_bytes(b"anything")
    (copy / "thesis.tex").write_text("anything")
    assert "zzz" not in load_result(copy).tables
    rewrite(copy, "links", lambda found: found.pop("busy_s"))
    refused(copy, "links.parquet", "busy_s")


def test_what_unpacks_to_far_more_than_its_file_is_refused_before_it_is_unpacked(copy):
    rows = 1_000_000  # of so many columns: 100 MB
    found, metadata = columns(copy, "links")
    many = pa.table({name: pa.array([values[0].as_py()] * rows, values.type) for name, values in found.items()})
    many = many.replace_schema_metadata(metadata)
    with pq.ParquetWriter(copy / "links.parquet", many.schema) as writer:
        for _ in range(3):
            writer.write_table(many)
    refused_in_little_memory(copy, "links.parquet", "rows")
    rewrite(copy, "ranks", lambda found: None)
    shutil.copy(copy / "ranks.parquet", copy / "links.parquet")
    refused(copy, "links.parquet")


def test_words_without_end_are_refused(copy):
    rewrite(copy, "spans", lambda found: found.update(phase=full("x" * 1_000_000, pa.string())(found)))
    refused_in_little_memory(copy, "spans.parquet")


def test_arrays_that_unpack_to_far_more_than_their_file_are_refused(copy):
    with np.load(copy / "flows.npz") as archive:
        arrays = dict(archive)
    np.savez_compressed(copy / "flows.npz", **{**arrays, "size": np.zeros(60_000_000)})
    refused_in_little_memory(copy, "flows.npz")


def refused_in_little_memory(copy, *said):
    tracemalloc.start()
    try:
        refused(copy, *said)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("array", [np.zeros((2, 2, 2)), np.zeros(4), np.array(["a"]), np.array([[np.nan]])])
def test_arrays_of_another_shape_or_kind_are_refused(copy, array):
    with np.load(copy / "traffic.npz") as archive:
        arrays = dict(archive)
    name = next(name for name in arrays if name.startswith("selections"))
    np.savez_compressed(copy / "traffic.npz", **{**arrays, name: array})
    refused(copy, "traffic.npz", name)


def test_a_trace_is_unpacked_whole_or_not_at_all(saved, copy):
    path = copy / "trace.json.gz"
    assert json.loads(unpacked_trace(path))["traceEvents"]
    whole = path.read_bytes()
    for content in (gzip.compress(bytes(300_000_000)), whole[:-9], b"", b"no gzip", gzip.compress(b"{}")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"trace\.json\.gz"):
            unpacked_trace(path)


def test_what_cannot_be_made_of_a_folder_is_its_own_fault_only_if_it_has_changed(saved, copy):
    with pytest.raises(ZeroDivisionError), made_of(saved):
        raise ZeroDivisionError
    change(copy, "notes", lambda content: content["notes"].append({"kind": "info", "text": "mine"}))
    with pytest.raises(InputError, match="changed since its run"), made_of(saved, copy):
        raise ZeroDivisionError
    with pytest.raises(InputError, match="said"), made_of(copy):
        raise InputError("said")
