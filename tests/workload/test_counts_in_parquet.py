import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moesim.errors import InputError
from moesim.workload import counts_batch, read_counts

GOOD = {"layer": [3, 3, 5], "expert": [0, 2, 1], "count": [7, 1, 9]}


def parquet(path, columns, **types):
    pq.write_table(pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()}), path)
    return path


def test_parquet_says_the_same_as_csv(tmp_path):
    rows = "".join(f"{layer},{expert},{count}\n" for layer, expert, count in zip(*GOOD.values(), strict=True))
    (tmp_path / "c.csv").write_text("layer,expert,count\n" + rows)
    for width in (None, 4):
        text = read_counts(tmp_path / "c.csv", width)
        table = read_counts(parquet(tmp_path / "c.parquet", GOOD), width)
        assert {layer: row.tolist() for layer, row in table.items()} == {
            layer: row.tolist() for layer, row in text.items()
        }


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float32(), pa.float64()])
def test_counts_may_be_of_any_type_of_number_and_columns_in_any_order(tmp_path, kind):
    backwards = dict(reversed(GOOD.items()))
    file = parquet(tmp_path / "C.PARQUET", backwards, count=kind, layer=pa.uint8(), expert=pa.int32())
    assert {layer: row.tolist() for layer, row in read_counts(file).items()} == {3: [7, 0, 1], 5: [0, 9, 0]}


def test_a_table_written_by_pandas_in_several_row_groups_is_read(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"layer": np.repeat([0, 1], 50), "expert": np.tile(range(50), 2), "count": np.arange(100.0)})
    frame.to_parquet(tmp_path / "c.parquet", row_group_size=7)
    assert np.array_equal(read_counts(tmp_path / "c.parquet")[1], np.arange(50.0, 100))


def test_a_batch_is_drawn_from_parquet_as_from_an_array(tmp_path):
    counts = np.array([4, 3, 2, 1])
    file = parquet(tmp_path / "c.parquet", {"layer": [0] * 4, "expert": list(range(4)), "count": counts})
    drawn = [
        counts_batch(source, top_k=2, n_ranks=2, n_experts=4, tokens_per_rank=8, rng=np.random.default_rng(0))
        for source in (file, counts)
    ]
    assert np.array_equal(drawn[0].expert_ids[0], drawn[1].expert_ids[0])


@pytest.mark.parametrize(
    ("change", "types", "says"),
    [
        ({"count": [1, -1, 3]}, {}, "row 2: count is -1.0; a number, 0 or more"),
        ({"count": [1.0, 2.0, np.nan]}, {}, "row 3: count is nan"),
        ({"count": [1.0, np.inf, 1.0]}, {}, "row 2: count is inf"),
        ({"count": [1, None, 3]}, {}, "row 2: count is missing"),
        ({"expert": [0, 1, None]}, {}, "row 3: expert is missing"),
        ({"expert": [0, 4, 1]}, {}, "row 2: expert is 4; a whole number from 0 to 3"),
        ({"expert": [0, 2**64 - 1, 1]}, {"expert": pa.uint64()}, "row 2: expert is 18446744073709551615"),
        ({"layer": [-1, 0, 1]}, {}, "row 1: layer is -1; a whole number from 0 to 9999"),
        ({"layer": [3, 3, 3], "expert": [0, 2, 2]}, {}, "row 3: layer 3, expert 2 appears twice"),
        ({"layer": [1.0, 2.0, 3.0]}, {}, "layer is of type double"),
        ({"count": ["1", "2", "3"]}, {}, "count is of type"),
        ({"count": [[1], [2], [3]]}, {}, "count is of type list"),
        ({"rank": [0, 0, 0]}, {}, r"the columns are \['layer', 'expert', 'count', 'rank'\]"),
        ({name: [] for name in GOOD}, dict.fromkeys(GOOD, pa.int64()), "no counts"),
    ],
)
def test_mistakes_in_a_counts_table_are_named_with_their_row(tmp_path, change, types, says):
    with pytest.raises(InputError, match=says) as caught:
        read_counts(parquet(tmp_path / "c.parquet", GOOD | change, **types), n_experts=4)
    assert "\n" not in str(caught.value) and "c.parquet" in str(caught.value)


def test_what_is_no_parquet_file_is_refused_in_one_line(tmp_path):
    whole = parquet(tmp_path / "whole.parquet", GOOD).read_bytes()
    no_text = whole.replace(b"expert", b"\xffxpert")
    for content in (b"", b"layer,expert,count\n0,0,1\n", whole[:-30], whole[:40], bytes(len(whole)), no_text):
        (tmp_path / "c.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"c\.parquet: cannot be read") as caught:
            read_counts(tmp_path / "c.parquet")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_counts(tmp_path / "absent.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_counts(tmp_path / "folder.parquet")


def test_a_table_too_large_for_counts_is_refused_before_it_is_read(tmp_path, monkeypatch):
    file = parquet(tmp_path / "c.parquet", GOOD)
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.read", lambda *_: pytest.fail("read"))
    monkeypatch.setattr("moesim.workload.counts_file.MAX_LINES", 2)
    with pytest.raises(InputError, match="more than 2 rows"):
        read_counts(file)
    monkeypatch.setattr("moesim.workload.counts_file.MAX_PARQUET_BYTES", 1 << 8)
    with pytest.raises(InputError, match="counts are a small table"):
        read_counts(file)
