import io
import zipfile

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.workload import counts_batch, expert_ids_batch, logits_batch, read_counts
from moesim.workload.npz_input import read_array

IDS = np.array([[0, 1], [2, 3], [3, 0], [1, 2]])


def rng():
    return np.random.default_rng(0)


def ids_batch(source, **how):
    return expert_ids_batch(source, **{"n_experts": 4, "n_ranks": 2, "rng": rng(), **how})


def counts(source, **how):
    return counts_batch(source, **{"top_k": 2, "n_ranks": 2, "rng": rng(), **how})


def test_given_experts_reach_their_tokens_unchanged(tmp_path):
    np.save(tmp_path / "ids.npy", IDS)
    np.savez(tmp_path / "ids.npz", topk_idx=np.stack([IDS, IDS[::-1]]), topk_weights=np.ones((4, 2)))
    b = ids_batch(tmp_path / "ids.npy")
    assert np.array_equal(b.expert_ids[0][b.token_index], IDS)
    assert b.logits is None and b.token_rank.tolist() == [0, 0, 1, 1] and b.layers == (0,)
    assert b.bias[0].tolist() == [0] * 4
    b = ids_batch(str(tmp_path / "ids.npz"), layers=[3, 5])
    assert np.array_equal(b.expert_ids[5][b.token_index], IDS[::-1])
    assert b.expert_ids[3].dtype == np.int32


def test_given_experts_are_repeated_by_block_bootstrap():
    b = ids_batch(IDS, tokens_per_rank=50, sequence_length=2)
    assert b.tokens == 100 and b.distinct_tokens == 4
    assert "100 tokens with given experts, 4 distinct (block bootstrap)" in b.notes[0]


def test_whole_numbers_stored_as_floats_are_ids_too():
    assert np.array_equal(ids_batch(IDS.astype(float)).expert_ids[0], IDS)


@pytest.mark.parametrize(
    ("source", "how", "says"),
    [
        (np.array([[0, 4]]), {"n_ranks": 1}, r"layer 0: token 0 selects \[0, 4\], outside 0 to 3"),
        (np.array([[0, 1], [-1, 2]]), {}, "token 1 selects"),
        (np.array([[0, 1], [2, 2]]), {}, "token 1 selects an expert twice"),
        (np.array([[0, 1], [2, np.nan]]), {}, "layer 0, token 1: expert id nan"),
        (np.array([[0, 1.5]]), {}, "is not a whole number"),
        (np.array([0, 1]), {}, "has shape"),
        (np.zeros((0, 2), int), {}, "has shape"),
        (np.array([["a", "b"]]), {}, "of type <U1"),
        (IDS, {"layers": [1, 2]}, "1 layers of data for the layers"),
        (IDS, {"sequence_length": 0}, "0 tokens per sequence"),
    ],
)
def test_impossible_expert_ids_are_refused(source, how, says):
    with pytest.raises(InputError, match=says):
        ids_batch(source, **how)


def test_tokens_drawn_from_counts_load_the_experts_in_proportion():
    given = np.array([400, 10, 50, 100, 200, 0, 30, 210])
    b = counts(given, top_k=2, tokens_per_rank=20_000)
    ids = b.expert_ids[0]
    assert (np.diff(ids, axis=1) > 0).all(), "a token selects an expert twice"
    got = np.bincount(ids.ravel(), minlength=8)
    expected = given / given.sum() * ids.size
    assert got[5] == 0
    # Four standard deviations of 40,000 tokens, each of which has the expert or not.
    assert (np.abs(got - expected) <= 4 * np.sqrt(np.maximum(expected, 0))).all()
    assert "20,000 distinct" not in b.notes[0] and "40,000 tokens drawn from expert counts" in b.notes[0]
    assert b.notes[1] == "1 of 8 experts have no count in any layer: are these counts of this model?"


def test_how_the_experts_of_a_token_go_together_is_told_to_be_estimated():
    b = counts({1: np.array([1, 2, 0, 1]), 2: np.array([0, 1, 1, 1])}, tokens_per_rank=3)
    (said,) = b.estimated
    assert "it selects 2 different ones independently" in said
    assert len(b.notes) == 1, "every expert has a count in some layer"
    assert ids_batch(IDS).estimated == ()


def test_counts_of_an_expert_in_every_token_put_it_into_every_token():
    ids = counts(np.array([100, 60, 40]), top_k=2, tokens_per_rank=500).expert_ids[0]
    assert (ids == 0).any(axis=1).all()


def test_when_all_experts_are_selected_every_token_has_them_all():
    assert counts(np.array([5, 5]), tokens_per_rank=3).expert_ids[0].tolist() == [[0, 1]] * 6


def test_more_tokens_than_are_drawn_repeat_blocks():
    b = counts(np.ones(8), tokens_per_rank=1000, max_distinct=64, sequence_length=16)
    assert b.distinct_tokens <= 64 and "repeat whole blocks" in b.notes[0]


def test_counts_come_from_arrays_mappings_and_files_alike(tmp_path):
    table = np.array([[1, 2, 3, 4], [4, 3, 2, 1]])
    np.savez(tmp_path / "c.npz", counts=table)
    lines = [f"{layer},{expert},{table[layer, expert]}" for expert in range(4) for layer in range(2)]
    (tmp_path / "c.csv").write_text("layer,expert,count\n" + "\n".join(lines) + "\n\n")
    batches = [
        counts(source, layers=[1], tokens_per_rank=8)
        for source in (table, {0: table[0], 1: table[1]}, tmp_path / "c.npz", str(tmp_path / "c.csv"))
    ]
    for b in batches:
        assert b.layers == (1,)
        assert np.array_equal(b.expert_ids[1], batches[0].expert_ids[1])


def test_experts_without_a_line_have_the_count_0(tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("expert,count,layer\n1,5,7\n")
    assert {layer: row.tolist() for layer, row in read_counts(file).items()} == {7: [0, 5]}
    assert read_counts(file, n_experts=4)[7].tolist() == [0, 5, 0, 0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"c.csv:1: the header is \[\]"),
        ("layer,expert\n", "c.csv:1: the header"),
        ("layer,expert,count\n", "no counts"),
        ("layer,expert,count\n0,0,5\n0,1\n", "c.csv:3: 2 values"),
        ("layer,expert,count\n0,x,5\n", "c.csv:2: expert is 'x'"),
        ("layer,expert,count\n-1,0,5\n", "c.csv:2: layer is '-1'"),
        ("layer,expert,count\n0,99999999,5\n", "c.csv:2: expert is"),
        ("layer,expert,count\n0,0,-5\n", "c.csv:2: count is '-5'"),
        ("layer,expert,count\n0,0,nan\n", "c.csv:2: count is 'nan'"),
        ("layer,expert,count\n0,0,many\n", "c.csv:2: count is 'many'"),
        ("layer,expert,count\n0,0,5\n0,0,6\n", "c.csv:3: layer 0, expert 0 appears twice"),
        (b"layer,expert,count\n0,0,\xff\n", "cannot be read"),
    ],
)
def test_mistakes_in_a_counts_file_are_named_with_their_line(tmp_path, text, says):
    file = tmp_path / "c.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=says) as caught:
        counts(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "how", "says"),
    [
        (np.array([1.0, np.nan]), {}, "expert 1 has the count nan"),
        (np.array([1, -1, 3]), {}, "expert 1 has the count -1"),
        (np.zeros(4), {}, "all counts are 0"),
        (np.array([9, 1, 1]), {}, "expert 0 has 81.8% of the selections, more than one per token"),
        (np.array([5, 0, 0]), {}, "top-2 of 1 experts with a count"),
        (np.ones(4), {"n_experts": 8}, "counts of 4 experts; the model has 8"),
        (np.ones((1, 1, 4)), {}, "have shape"),
        ({0: np.ones(4), 1: np.ones(5)}, {}, "different numbers of experts"),
        ({}, {}, "no counts of layer"),
        (np.ones(4), {"layers": [3]}, r"no counts of layer \[3\]"),
        ("absent.csv", {}, "no such file"),
        ("absent.npy", {}, "no such file"),
    ],
)
def test_impossible_counts_are_refused(source, how, says):
    with pytest.raises(InputError, match=says):
        counts(source, **how)


def test_given_logits_are_batched_like_a_recording(tmp_path):
    x = np.random.default_rng(1).normal(size=(2, 12, 4)).astype(np.float16)
    np.savez_compressed(tmp_path / "x.npz", logits=x)
    b = logits_batch(tmp_path / "x.npz", n_experts=4, n_ranks=3, rng=rng(), sequence_length=4, layers=[1, 2])
    assert np.array_equal(b.logits[2][b.token_index], x[1].astype(np.float32))
    assert b.sequence.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    more = logits_batch(x[0], n_experts=4, n_ranks=1, rng=rng(), tokens_per_rank=40, sequence_length=4)
    assert "40 tokens with given logits" in more.notes[0] and "bootstrap" in more.notes[0]


@pytest.mark.parametrize(
    ("x", "how", "says"),
    [
        (np.ones((4, 4), int), {}, "floats"),
        (np.ones(4), {}, "have shape"),
        (np.ones((4, 5)), {}, "logits of 5 experts; the model has 4"),
        (np.array([[0, 1, 2, 3.0], [0, np.inf, 1, 1]]), {}, "layer 0, token 1 has a logit that is not finite"),
        (np.ones((2, 4, 4)), {"layers": [1]}, "2 layers of data"),
    ],
)
def test_unusable_logits_are_refused(x, how, says):
    with pytest.raises(InputError, match=says):
        logits_batch(x, **{"n_experts": 4, "n_ranks": 1, "rng": rng(), **how})


def npy(array, **how):
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


def npz(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


LYING_HEADER = npy(np.zeros(2)).replace(b"(2,)", b"(9,)")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a numpy array"),
        (b"a text file, no numbers", "not a numpy array"),
        (npy(IDS)[:-3], "truncated"),
        (npz({"x.npy": npy(IDS)})[:-30], "cannot be read"),
        (LYING_HEADER, "announces shape"),
        (npz({"x.npy": LYING_HEADER}), "announces shape"),
        (npy(np.array([{}], object), allow_pickle=True), "Python objects"),
        (npz({"x.npy": npy(np.array([{}], object), allow_pickle=True)}), "Python objects"),
        (npz({"y.npy": npy(IDS)}), "no array 'x'; it has y"),
        (npz({"x.npy": npy(np.zeros(1 << 18))}), "compressed more than 200:1"),
        (npz({f"{i}.npy": b"" for i in range(1001)}), "1001 members"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_no_arrays_are_refused_in_one_line(tmp_path, content, says):
    file = tmp_path / "x.bin"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_array(file, "x")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_flipped_byte_in_an_archive_is_noticed(tmp_path):
    content = bytearray(npz({"x.npy": npy(np.random.default_rng(0).random(1000))}))
    content[4000] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_array(tmp_path / "x.npz", "x")


def test_files_larger_than_the_bound_are_refused_before_they_are_read(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros(100))
    monkeypatch.setattr("moesim.workload.npz_input.MAX_BYTES", 200)
    with pytest.raises(InputError, match="at most 200 are read"):
        read_array(tmp_path / "x.npy", "x")


def test_a_counts_file_longer_than_the_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("moesim.workload.counts_file.MAX_LINES", 2)
    (tmp_path / "c.csv").write_text("layer,expert,count\n0,0,1\n0,1,1\n0,2,1\n")
    with pytest.raises(InputError, match="more than 2 lines"):
        read_counts(tmp_path / "c.csv")


def test_arrays_with_long_headers_are_read(tmp_path):
    with (tmp_path / "x.npy").open("wb") as stream:
        np.lib.format.write_array(stream, IDS, version=(2, 0))
    assert np.array_equal(read_array(tmp_path / "x.npy", "x"), IDS)


def test_fortran_order_is_read_as_written(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(IDS))
    assert np.array_equal(read_array(tmp_path / "x.npy", "x"), IDS)
