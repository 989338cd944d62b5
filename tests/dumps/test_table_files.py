import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moesim.dumps import read_routing
from moesim.errors import InputError

GOOD = {"layer": [3, 3, 5], "expert": [0, 2, 1], "count": [7, 1, 9]}


def parquet(path, columns, **types):
    pq.write_table(pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()}), path)
    return path


def counts(path, **told):
    trace = read_routing(path, **told)
    assert trace.unit == "counts"
    return dict(zip(trace.layers, trace.expert_counts().tolist(), strict=True))


def test_parquet_says_the_same_as_csv(tmp_path):
    rows = "".join(f"{layer},{expert},{count}\n" for layer, expert, count in zip(*GOOD.values(), strict=True))
    (tmp_path / "c.csv").write_text("layer,expert,count\n" + rows)
    table = parquet(tmp_path / "c.parquet", GOOD)
    assert counts(table) == counts(tmp_path / "c.csv") == {3: [7, 0, 1], 5: [0, 9, 0]}
    assert counts(table, n_experts=4) == counts(tmp_path / "c.csv", n_experts=4) == {3: [7, 0, 1, 0], 5: [0, 9, 0, 0]}


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float32(), pa.float64()])
def test_counts_may_be_of_any_type_of_number_and_columns_in_any_order(tmp_path, kind):
    backwards = dict(reversed(GOOD.items()))
    file = parquet(tmp_path / "C.PARQUET", backwards, count=kind, layer=pa.uint8(), expert=pa.int32())
    assert counts(file) == {3: [7, 0, 1], 5: [0, 9, 0]}


def test_a_table_written_by_pandas_in_several_row_groups_is_read(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"layer": np.repeat([0, 1], 50), "expert": np.tile(range(50), 2), "count": np.arange(100.0)})
    frame.to_parquet(tmp_path / "c.parquet", row_group_size=7)
    assert counts(tmp_path / "c.parquet")[1] == list(range(50, 100))


@pytest.mark.parametrize(
    ("change", "types", "says"),
    [
        ({"count": [1, -1, 3]}, {}, "row 2: count is -1; a number, 0 or more"),
        ({"count": [1.0, 2.0, np.nan]}, {}, "row 3: count is nan"),
        ({"count": [1.0, np.inf, 1.0]}, {}, "row 2: count is inf"),
        ({"count": [1, None, 3]}, {}, "row 2: count is missing"),
        ({"expert": [0, 1, None]}, {}, "row 3: expert is missing"),
        ({"expert": [0, 4, 1]}, {}, "row 2: expert is 4; a whole number from 0 to 3"),
        ({"expert": [0, 2**64 - 1, 1]}, {"expert": pa.uint64()}, "row 2: expert is 18446744073709551615"),
        ({"layer": [-1, 0, 1]}, {}, "row 1: layer is -1; a whole number from 0 to 999"),
        ({"layer": [3, 3, 3], "expert": [0, 2, 2]}, {}, "row 3: layer 3, expert 2 appears twice"),
        ({"layer": [1.5, 2.0, 3.0]}, {}, "row 1: layer is 1.5"),
        ({name: [] for name in GOOD}, dict.fromkeys(GOOD, pa.int64()), "no counts"),
    ],
)
def test_mistakes_in_a_counts_table_are_named_with_their_row(tmp_path, change, types, says):
    with pytest.raises(InputError, match=says) as caught:
        read_routing(parquet(tmp_path / "c.parquet", GOOD | change, **types), n_experts=4)
    assert "\n" not in str(caught.value) and "c.parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"layer": [0], "expert": [1], "amount": ["x"]}, None),
        ({"words": ["a", "b"]}, r"the columns are \['words'\]"),
        ({"a": [1], "b": [2]}, "the columns are a, b; columns such as layer,expert,count are needed"),
    ],
)
def test_columns_that_nobody_knows_are_named(tmp_path, columns, says):
    file = parquet(tmp_path / "c.parquet", columns)
    if says is None:  # what is no number is left aside: a selection of expert 1
        assert counts(file) == {0: [0, 1]}
        return
    with pytest.raises(InputError, match=says):
        read_routing(file)


def test_what_is_no_parquet_file_is_refused_in_one_line(tmp_path):
    whole = parquet(tmp_path / "whole.parquet", GOOD).read_bytes()
    no_text = whole.replace(b"expert", b"\xffxpert")
    for content in (b"", b"layer,expert,count\n0,0,1\n", whole[:-30], whole[:40], bytes(len(whole)), no_text):
        (tmp_path / "c.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"c\.parquet: cannot be read") as caught:
            read_routing(tmp_path / "c.parquet")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_routing(tmp_path / "absent.parquet")


def test_a_table_whose_values_take_far_more_room_than_the_file_is_refused_by_its_footer(tmp_path):
    equal = pa.array(np.zeros(30_000_000, np.int64))
    file = parquet(tmp_path / "c.parquet", {"layer": equal, "expert": equal, "count": equal})
    assert file.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="30000000 rows of 720000000 bytes announced in a file of"):
        read_routing(file)


def test_a_reader_of_parquet_that_crashes_is_a_broken_file(tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr("moesim.parquet_file._CHILD", tmp_path / "child.py")
    with pytest.raises(InputError, match="its reader ended by signal 11"):
        read_routing(parquet(tmp_path / "c.parquet", GOOD))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"c.csv:1: the header is \[\]"),
        ("layer,expert,count\n", "no counts"),
        ("layer,expert,count\n0,0,5\n0,1\n", "c.csv:3: 2 values"),
        ("layer,expert,count\n0,x,5\n", "c.csv:2: expert is 'x'"),
        ("layer,expert,count\n-1,0,5\n", "c.csv:2: layer is -1"),
        ("layer,expert,count\n0,99999999,5\n", "c.csv:2: expert is"),
        ("layer,expert,count\n0,0,-5\n", "c.csv:2: count is -5"),
        ("layer,expert,count\n\n0,0,nan\n", "c.csv:3: count is 'nan'"),
        ("layer,expert,count\n0,0,many\n", "c.csv:2: count is 'many'"),
        ("layer,expert,count\n0,0,5\n0,0,6\n", "c.csv:3: layer 0, expert 0 appears twice"),
        (b"layer,expert,count\n0,0,\xff\n", "cannot be read"),
        ("layer,physical_expert_id,count\n0,0,5\n", "physical_expert_id holds slots; give the map"),
        ("layer,expert_0,expert_1\n0,4,5\n", "one row of numbers for each layer; say whether"),
        ("layer,token,expert_0,expert_1\n0,0,4,5\n0,1,4,5\n1,0,4,5\n", "layers have 1 to 2 rows"),
    ],
)
def test_mistakes_in_a_csv_file_are_named_with_their_line(tmp_path, text, says):
    file = tmp_path / "c.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=says) as caught:
        read_routing(file)
    assert "\n" not in str(caught.value)


def test_a_csv_file_longer_than_the_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("moesim.dumps.table_files.MAX_LINES", 2)
    (tmp_path / "c.csv").write_text("layer,expert,count\n0,0,1\n0,1,1\n0,2,1\n")
    with pytest.raises(InputError, match="more than 2 lines"):
        read_routing(tmp_path / "c.csv")


def test_counts_of_steps_are_kept_and_those_of_ranks_are_summed(tmp_path):
    (tmp_path / "c.csv").write_text(
        "Iteration,rank,layer_id,logical_expert_id,num_tokens\n7,0,3,0,1\n7,1,3,0,2\n7,0,3,1,4\n9,0,3,0,8\n9,1,3,1,16\n"
    )
    trace = read_routing(tmp_path / "c.csv")
    assert trace.counts.tolist() == [[[3, 4]], [[8, 16]]] and trace.layers == (3,)


def test_slots_are_mapped_where_the_map_is_told(tmp_path):
    (tmp_path / "c.csv").write_text("layer,slot,count\n0,0,1\n0,1,2\n0,2,4\n0,3,8\n")
    assert counts(tmp_path / "c.csv", slot_expert=np.array([0, 1, 2, 0])) == {0: [9, 2, 4]}


def test_checkpoints_of_a_training_run_keep_their_step(tmp_path):
    for step, first in ((10, 0), (20, 2)):
        folder = tmp_path / f"iter_{step:04}"
        folder.mkdir()
        for layer in (2, 3):
            rows = [[first, first + layer], [first + 1, first + layer]]
            pq.write_table(
                pa.table({"indices": rows, "scores": [[0.5, 0.4]] * 2}), folder / f"layer_{layer:02}.parquet"
            )
    trace = read_routing(tmp_path)
    assert trace.step.tolist() == [10, 10, 20, 20] and trace.layers == (2, 3)
    assert trace.ids[1].tolist() == [[0, 3], [1, 3], [2, 5], [3, 5]]
    assert trace.gates.shape == trace.ids.shape


def test_rows_of_several_tasks_are_summed_and_it_is_said(tmp_path):
    (tmp_path / "c.csv").write_text("task,layer,expert,tokens_routed\na,1,0,3\na,1,1,4\nb,1,0,10\nb,1,1,20\n")
    trace = read_routing(tmp_path / "c.csv")
    assert trace.expert_counts().tolist() == [[13, 24]] and "rows are summed over task" in trace.notes
    (tmp_path / "c.csv").write_text("task,layer,expert,tokens_routed\na,1,0,3\na,1,0,4\n")
    with pytest.raises(InputError, match=r"c\.csv:3: layer 1, expert 0 appears twice"):
        read_routing(tmp_path / "c.csv")


def test_tables_of_every_spelling_hold_the_same_counts(tmp_path):
    counts = np.random.default_rng(5).integers(1, 90, (3, 8))
    rows = [(layer + 1, expert, int(counts[layer, expert])) for layer in range(3) for expert in range(8)]
    files = {f"{i}.csv": mark.join(("layer", "expert", "count")) + "\n" for i, mark in enumerate(",;\t")}
    texts = {name: head + "".join(head[5].join(map(str, row)) + "\n" for row in rows) for name, head in files.items()}
    texts["rows.json"] = json.dumps([dict(zip(("layer", "expert", "count"), row, strict=True)) for row in rows])
    texts["rows.jsonl"] = "\n".join(json.dumps({"layer_id": a, "expert_id": b, "tokens": c}) for a, b, c in rows)
    texts["layers.json"] = json.dumps({f"layer_{layer + 1}": row.tolist() for layer, row in enumerate(counts)})
    texts["numbers.json"] = json.dumps({str(layer + 1): row.tolist() for layer, row in enumerate(counts)})
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        trace = read_routing(tmp_path / name, unit="counts" if name in ("layers.json", "numbers.json") else None)
        assert (trace.layers, trace.expert_counts().tolist()) == ((1, 2, 3), counts.tolist()), name
    (tmp_path / "ragged.json").write_text('[{"layer": 1, "ids": [1, 2]}, {"layer": 2, "ids": [1]}]')
    with pytest.raises(InputError, match="rows of unequal shape"):
        read_routing(tmp_path / "ragged.json")
