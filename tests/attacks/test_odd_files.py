"""Real but odd files and options that once were taken for something else, or broke off: refused in words that help."""

import io
import json
import os
import struct
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.attacks.formats import CONFIG, DEEPSEEK, MORE_ROWS
from tests.attacks.fuzz import Case, run_all, warm_up

pytestmark = [
    pytest.mark.jit,
    pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork"),
]
BASE = """\
cluster: {topology: h800-2x8-rail}
model: {n_experts: 16, hidden: 128, expert_hidden: 128, n_shared: 0}
routing: {kind: v1, top_k: 2}
"""
TOKENS = "workload: {tokens_per_rank: 4}\n"
COUNTS = (np.arange(16).reshape(2, 8) + 1) * 10
SHOW = ("routing", "show", "HERE/FILE", "--top-k", "2")
RUN = ("run", "HERE/FILE", "--no-report", "-q", "--out", "HERE/out")
SWEEP = ("sweep", "HERE/FILE", "-q", "--jobs", "1", "--out", "HERE/out")


def saved(save, what):
    stream = io.BytesIO()
    save(stream, **what) if isinstance(what, dict) else save(stream, what)
    return stream.getvalue()


def npz(**arrays):
    return saved(np.savez, arrays)


def table(**columns):
    layer, expert = [1] * 4 + [2] * 4, [*range(4)] * 2
    return saved(
        lambda stream, made: pq.write_table(made, stream), pa.table({"layer": layer, "expert": expert} | columns)
    )


def tensors(**places):
    head = json.dumps({name: {"dtype": "I64", "shape": [(end - begin) // 8], "data_offsets": [begin, end]}
                       for name, (begin, end) in places.items()}).encode()  # fmt: skip
    return struct.pack("<Q", len(head)) + head + COUNTS.astype("<i8").tobytes()


def config(base=CONFIG, **changes):
    return json.dumps(base | changes, indent=1)


def csv(header, *rows):
    return f"{header}\n" + "".join(f"{row}\n" for row in rows)


# Name: the command, its file, what the file holds, and what the refusal says.
REFUSED = {
    "thousands behind dots": (
        SHOW,
        "c.csv",
        csv("layer;expert;count", "1;0;1.024", "1;1;999"),
        ":2: count has thousands",
    ),
    "two columns of one name": (
        SHOW,
        "c.csv",
        csv("layer,expert,count,Count", "1,0,3,1", "1,1,4,1"),
        "columns of one name",
    ),
    "counts under another name": (SHOW, "c.csv", csv("layer,expert,hits", "1,0,300", "1,1,4"), "is it 'hits'?"),
    "counts behind a mark": (SHOW, "c.csv", csv("layer,expert,\u202ecount", "1,0,3", "1,1,4"), "is it '\\u202ecount'?"),
    "counts by the row": (SHOW, "c.csv", csv("expert_0,expert_1", "300,4", "1,2"), "counts or ids (--unit)"),
    "a comma at every end": (
        SHOW,
        "c.csv",
        csv("layer,expert,count", "1,0,3,"),
        "4 values, not 3; the header has layer,",
    ),
    "steps below 0": (SHOW, "c.csv", csv("step,layer,expert,count", "-1,1,0,3", "-1,1,1,4"), "step is -1"),
    "more per token than experts": (SHOW, "c.csv", csv("layer,expert,count", "1,0,3"), "2 experts of a token, of 1"),
    "Parquet counts as hits": (SHOW, "c.parquet", table(hits=[*range(8)]), "is it 'hits'?"),
    "Parquet of two cases": (SHOW, "c.parquet", table(count=[5] * 8, Count=[1] * 8), "columns of one name"),
    "Parquet of lists of one": (SHOW, "c.parquet", table(count=[[n] for n in range(8)]), "count is a list in each row"),
    "too few layer numbers": (
        SHOW,
        "c.npz",
        npz(counts=COUNTS, layer_ids=np.array([1])),
        "2 layers of data for 1 numbers",
    ),
    "layers below 0": (SHOW, "c.npz", npz(counts=COUNTS, layer_ids=np.array([-1, 2])), "numbers are from 0 to 999"),
    "layers of a trillion": (SHOW, "c.npz", npz(counts=COUNTS, layer_ids=np.array([1, 1 << 40])), "are from 0 to 999"),
    "logits beyond float32": (
        (*SHOW, "--unit", "logits"),
        "c.npy",
        saved(np.save, np.full((4, 8), 1e300)),
        "not finite",
    ),
    "an axis named twice": ((*SHOW, "--axes", "layers,layers"), "c.npz", npz(counts=COUNTS), "counts has shape (2, 8)"),
    "a range of ranges": (
        (*SHOW, "--layers", "1..2..3"),
        "c.npz",
        npz(counts=COUNTS),
        "--layers: '1..2..3' are no numbers",
    ),
    "layers in Arabic": ((*SHOW, "--layers", "\u0661..\u0662"), "c.npz", npz(counts=COUNTS), "are no numbers"),
    "no experts": ((*SHOW, "--experts", "0"), "c.npz", npz(counts=COUNTS), "greater than or equal to 1"),
    "tensors over each other": (
        SHOW,
        "c.safetensors",
        tensors(counts=(0, 128), load=(64, 128)),
        "its arrays overlap, or leave",
    ),
    "a hole between tensors": (SHOW, "c.safetensors", tensors(counts=(64, 128)), "its arrays overlap, or leave"),
    "rubbish behind tensors": (SHOW, "c.safetensors", tensors(counts=(0, 120)), "its arrays overlap, or leave"),
    "a tensor's name twice": (
        SHOW,
        "c.safetensors",
        tensors(counta=(0, 64), countb=(64, 128)).replace(b"counta", b"counts").replace(b"countb", b"counts"),
        "key 'counts' appears twice",
    ),
    "a JSON key twice": (
        ("model", "HERE/FILE"),
        "config.json",
        '{"hidden_size": 1,\n' + config()[1:],
        ":7:2: key 'hidden_size'",
    ),
    "groups of unequal size": (
        ("model", "HERE/FILE"),
        "config.json",
        config(DEEPSEEK, n_group=7),
        "7, which does not divide 256",
    ),
    "5 KV heads of 32": (
        ("model", "HERE/FILE"),
        "config.json",
        config(num_key_value_heads=5),
        "5, which does not divide 32 heads",
    ),
    "a thousands comma in a block": (
        RUN,
        "s.yaml",
        BASE + "workload: {tokens_per_rank: 4,096}\n",
        ":4:31: workload.096: unknown key",
    ),
    "a misspelt key without a value": (RUN, "s.yaml", BASE + TOKENS.replace("}", ", step: }"), "did you mean 'steps'?"),
    "a NIC of NVLink": (
        RUN,
        "s.yaml",
        BASE + TOKENS + "faults: [{kind: slow_nic, where: n0.gpu0.nvlink.nic, factor: 2}]\n",
        ":5:34: faults[0].where: no place",
    ),
    "a value twice": ((*SWEEP, "-p", "seed=1,2,1.0"), "s.yaml", BASE + TOKENS, "seed: a value stands there twice"),
    "an axis twice": ((*SWEEP, "-p", "seed=0,1", "-p", "seed=2,3"), "s.yaml", BASE + TOKENS, "seed is on two axes"),
    "a key twice in a zip": ((*SWEEP, "--zip", "seed=0,1;seed=2,3"), "s.yaml", BASE + TOKENS, "seed is on two axes"),
    "a million redundant experts": (
        ("place", "HERE/FILE", "-q", "--redundant", "1000000"),
        "s.yaml",
        BASE + TOKENS,
        "less than or equal to 100000",
    ),
    "more SMs than there are": (
        ("validate", "--rows", "HERE/FILE"),
        "m.csv",
        MORE_ROWS.replace(",24,", ",999,"),
        "999 SMs of 132",
    ),
    "a limit in Arabic": (
        ("validate", "--rows", "HERE/FILE", "--fail-over", "\u0665%"),
        "m.csv",
        MORE_ROWS,
        "is not a percentage",
    ),
    "a limit below 0": (
        ("validate", "--rows", "HERE/FILE", "--fail-over", "-5%"),
        "m.csv",
        MORE_ROWS,
        "is not a percentage",
    ),
    "a long line of groups": (
        ("run", "HERE/s.yaml", "--no-report", "-q", "--out", "HERE/out"),
        "g.txt",
        "n0 " * 3_000_000,
        "g.txt:1: group 0 has 3000000 places",
    ),
}
TELLS = {
    "a head of size 0": (
        ("model", "HERE/FILE"),
        "config.json",
        config(head_dim=0),
        "note: head_dim is 0: read as not given",
    ),
    "two columns of counts": (
        SHOW,
        "c.csv",
        csv("layer,expert,count,tokens", "1,0,3,9", "1,1,4,9"),
        "count is read, tokens is not",
    ),
    "a name of two lines": (("model", "HERE/FILE"), "config.json", config(model_type="a\nnote: b"), "a note: b: "),
}


@pytest.fixture(scope="module")
def came_of(tmp_path_factory):
    warm_up()
    base, cases, heres = tmp_path_factory.mktemp("odd"), [], {}
    flap = BASE + TOKENS + "faults: [{kind: flap, where: n0.gpu0.nic, to: 1s}]\n"
    for number, (name, (command, file, content, _)) in enumerate(
        (REFUSED | TELLS | {"a second of flap": (RUN, "s.yaml", flap, "")}).items()
    ):
        heres[name] = here = base / str(number)
        here.mkdir()
        (here / "s.yaml").write_text(BASE + TOKENS + "parallel: {ep: 8, dp: 16, group_placement: g.txt}\n")
        (here / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        cases.append(Case([word.replace("HERE", str(here)).replace("FILE", file) for word in command]))
    return {name: (here, done) for (name, here), done in zip(heres.items(), run_all(cases, base), strict=True)}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_taken_for_something_else_is_refused_in_one_line(name, came_of):
    here, outcome = came_of[name]
    assert (outcome.code, outcome.fault) == (2, "")
    assert REFUSED[name][-1] in outcome.err.splitlines()[-1]
    assert not (here / "out").exists()


@pytest.mark.parametrize("name", TELLS)
def test_what_is_read_in_one_of_two_ways_is_said(name, came_of):
    _, outcome = came_of[name]
    assert (outcome.code, outcome.fault) == (0, "")
    assert TELLS[name][-1] in outcome.out


def test_a_second_without_a_byte_takes_no_more_memory_than_a_millisecond(came_of):
    _, outcome = came_of["a second of flap"]
    assert (outcome.code, outcome.fault) == (0, "")
