"""Recorded routing that contradicts itself or what is told of it: refused in one line that names the file."""

import base64
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch_writer

from moesim.dumps import read_routing
from moesim.errors import InputError

IDS = np.array([[[0, 1], [2, 3], [1, 2]]])  # one layer, three tokens, two experts each


def refused(path, says, **told):
    with pytest.raises(InputError) as caught:
        read_routing(path, **told)
    assert "\n" not in str(caught.value) and path.name.split(".")[0] in str(caught.value)
    assert says in str(caught.value)


ARRAYS = {
    "two units": ({"topk_ids": IDS, "counts": np.ones((1, 4))}, {}, "it holds topk_ids, counts; say which is meant"),
    "no known name": ({"x": IDS, "y": IDS}, {}, "it holds x, y; an array named logits, topk_idx or counts"),
    "layers apart, unequal": (
        {"topk_ids_0": IDS[0], "topk_ids_1": IDS[0, :2]},
        {},
        "topk_ids of 2 layers has the shapes [(2, 2), (3, 2)]",
    ),
    "slots without a map": ({"physical_count": np.ones((1, 4))}, {}, "counts slots; give the map"),
    "four axes": ({"topk_ids": np.ones((1, 1, 1, 2), int)}, {}, "topk_ids has shape (1, 1, 1, 2) of int64"),
    "whole logits": ({"logits": IDS}, {}, "floats [tokens, experts] or [layers, tokens, experts] are logits"),
    "no axis of that name": ({"topk_ids": IDS}, {"axes": ("layers", "tokens", "experts")}, "has shape (1, 3, 2)"),
    "flags": ({"x": np.ones((2, 2), bool)}, {}, "an array of shape (2, 2) of bool; logits, expert ids or counts?"),
    "another K": ({"topk_ids": IDS}, {"top_k": 3}, "2 experts per token, not 3"),
    "another E": (
        {"counts": np.ones((1, 4))},
        {"n_experts": 3},
        "counts of 4 experts, the model has 3; are these slots?",
    ),
    "fewer experts": ({"counts": np.ones((1, 4))}, {"n_experts": 5}, "are these counts of this model?"),
    "another E of logits": ({"logits": IDS + 0.5}, {"n_experts": 3}, "logits of 2 experts, the model has 3"),
    "an expert too many": ({"topk_ids": IDS}, {"n_experts": 3}, "layer 0: token 1 selects [2, 3], outside 0 to 2"),
    "an expert twice": ({"topk_ids": [[[1, 1]]]}, {}, "layer 0: token 0 selects an expert twice: [1, 1]"),
    "half an expert": ({"topk_ids": IDS + 0.5}, {}, "layer 0, token 0: expert id 0.5 is not a whole number"),
    "no expert": ({"topk_ids": np.full((1, 3, 2), -1)}, {}, "no token selects an expert"),
    "a count below 0": ({"counts": [[1, 2], [3, -4]]}, {}, "layer 1, expert 1 has the count -4; counts are from 0"),
    "no number": ({"counts": [[1, np.nan]]}, {}, "layer 0, expert 1 has the count nan"),
    "too many selections": ({"counts": [[2.0**53, 2.0**53]]}, {}, "the counts sum to 1.8e+16"),
    "no count": ({"counts": np.zeros((2, 4))}, {}, "all counts are 0"),
    "an endless logit": ({"logits": [[0.5, np.inf]]}, {}, "layer 0, token 0 has a logit that is not finite"),
    "a layer named twice": ({"counts": np.ones((2, 4))}, {"layers": (3, 3)}, "2 layers of data for 2 numbers"),
    "a layer without number": ({"counts": np.ones((2, 4))}, {"layers": (3,)}, "2 layers of data for 1 numbers"),
    "too many layers": ({"counts": np.ones((1001, 2))}, {}, "1001 layers; at most 1000 are read"),
    "too many experts": ({"counts": np.ones((1, 65537))}, {}, "65537 experts; at most 65536"),
    "a map of fewer layers": (
        {"topk_ids": np.repeat(IDS, 2, axis=0)},
        {"slot_expert": np.arange(4)[None]},
        "the map has 1 layers, the routing more",
    ),
    "a map of fewer slots": ({"topk_ids": IDS}, {"slot_expert": np.arange(3)}, "slot 3, the map has 3"),
    "a map of other counts": (
        {"counts": np.ones((1, 4))},
        {"slot_expert": np.arange(6).reshape(2, 3)},
        "counts of 1 layers x 4 slots, a map of 2 x 3",
    ),
    "ids where logits are meant": ({"topk_ids": IDS}, {"unit": "logits"}, "it holds ids, not logits"),
    "fewer tokens than layers": (
        {"topk_ids": np.arange(12).reshape(3, 2, 2)},
        {},
        "3 layers of 2 tokens, or tokens before",
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_contradict_themselves_or_what_is_told(tmp_path, name):
    arrays, told, says = ARRAYS[name]
    np.savez(tmp_path / "r.npz", **{key: np.asarray(value) for key, value in arrays.items()})
    refused(tmp_path / "r.npz", says, **told)


def megatron(folder, *lines, rank=0):
    whole = {"step": 0, "layer": 1, "top_indices": [[0, 1], [2, 3]]}
    text = [line if isinstance(line, str) else json.dumps(whole | line) for line in lines]
    (folder / f"router_trace_rank{rank}.jsonl").write_text("\n".join(text))


LOGITS = {"logit_offset": 0, "logit_shape": [2, 4], "logit_bytes": 16}
MEGATRON = {
    "a step that is no number": ([{"step": "first"}], "a line without whole step, layer and top_indices"),
    "no tokens": ([{"top_indices": [0, 1]}], "top_indices have shape (2,); [tokens, k] is needed"),
    "a layer twice": ([{}, {}], "step 0, layer 1 appears twice"),
    "no decoder": ([{"block": "mtp"}], "no line of the decoder"),
    "a list": (["[1]"], "a line that is no object"),
    "another number of tokens": (
        [{}, {"layer": 2, "top_indices": [[0, 1]]}],
        "step 0 of rank 0 has other layers or tokens",
    ),
    "another layer": ([{}, {"step": 1, "layer": 2}], "step 1 of rank 0 has other layers or tokens than the first"),
    "logits of other tokens": ([{**LOGITS, "logit_shape": [3, 4]}], "layer 1: logits of shape [3, 4] at 0"),
    "logits without size": ([{**LOGITS, "logit_bytes": None}], "layer 1: logits of shape [2, 4] at 0"),
    "logits beyond the end": ([{**LOGITS, "logit_offset": 1}], "layer 1: logits at 1 lie beyond the end"),
    "logits of other bytes": ([{**LOGITS, "logit_bytes": 8}], "layer 1: logits at 0 lie beyond the end"),
    "logits of two widths": (
        [LOGITS, {"layer": 2, "logit_offset": 0, "logit_shape": [2, 2], "logit_bytes": 8}],
        "logits of different numbers",
    ),
    "a layer that selects nothing": (
        [{**LOGITS, "top_indices": [[-1, -1], [-1, -1]]}, {**LOGITS, "layer": 2}],
        "a layer selects nothing",
    ),
}


@pytest.mark.parametrize("name", MEGATRON)
def test_router_traces_whose_lines_do_not_go_together(tmp_path, name):
    lines, says = MEGATRON[name]
    megatron(tmp_path, *lines)
    (tmp_path / "logits_rank0.bin").write_bytes(bytes(16))
    refused(tmp_path, says)


def test_a_router_trace_without_all_logits_keeps_its_ids_and_counts_repeated_tokens_once(tmp_path):
    megatron(tmp_path, {**LOGITS}, {"step": 1, "top_indices": [[4, 5]]})
    megatron(tmp_path, {}, rank=1)  # a tensor-parallel rank sees the tokens of rank 0
    trace = read_routing(tmp_path)
    assert trace.ids.tolist() == [[[0, 1], [2, 3], [4, 5]]] and trace.step.tolist() == [0, 0, 1]
    said = " ".join(trace.notes)
    assert "1 of 3 steps of ranks repeat another's tokens" in said and "1 of 2 lines have no logits" in said


def response(**meta):
    return {"meta_info": {"routed_experts": [[[0, 1]]]} | meta}


def encoded(count, dtype="int32"):
    return base64.b64encode(np.arange(count, dtype=dtype).tobytes()).decode()


RESPONSES = {
    "other layers": (
        [response(), response(routed_experts=[[[0, 1], [2, 3]]])],
        "responses of the shapes [(1, 2), (2, 2)]",
    ),
    "no layers": (response(routed_experts=[[0, 1]]), "routed_experts has shape (1, 2) of int64; [tokens, layers, k]"),
    "a type that is none": (
        response(routed_experts=encoded(2), routed_experts_dtype="float8"),
        "routed_experts_dtype is 'float8'",
    ),
    "no base64": (response(routed_experts="?"), "routed_experts is no base64 of int32"),
    "half a number": (
        response(routed_experts=base64.b64encode(b"abc").decode()),
        "routed_experts is no base64 of int32",
    ),
    "a mask of others": (
        response(routed_experts={"values": [[[0, 1]]], "valid_mask": [True, True]}),
        "valid_mask has shape (2,), values (1, 1, 2)",
    ),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_responses_whose_experts_have_no_shape(tmp_path, name):
    data, says = RESPONSES[name]
    (tmp_path / "r.json").write_text(json.dumps(data))
    refused(tmp_path / "r.json", says)


@pytest.mark.parametrize(("told", "tokens"), [({"top_k": 2}, 3), ({"layers": (3, 4)}, 3)])
def test_the_number_of_tokens_gives_the_shape_of_base64(tmp_path, told, tokens):
    # Two layers of top-2 for the prompt's three tokens and a fourth, generated, whose routing nobody has.
    meta = {"routed_experts": encoded(12), "prompt_tokens": 3, "completion_tokens": 1}
    (tmp_path / "r.json").write_text(json.dumps([3, response(**meta)]))
    trace = read_routing(tmp_path / "r.json", **told)
    assert trace.tokens == tokens and trace.ids[1].tolist() == [[2, 3], [6, 7], [10, 11]]


def stat(**changes):
    return {"logical_count": np.ones((1, 2, 4), np.int32)} | changes


def record(**changes):
    return {"forward_pass_id": 0, "rank": 0, "topk_ids_of_layer": IDS.astype(np.int32)} | changes


def records(*found, slots=4, **changes):
    given = {"records": list(found), "last_physical_to_logical_map": np.tile(np.arange(slots), (1, 1))}
    return given | changes


SGLANG = {
    "two dumps": ({"a.pt": stat(), "b.pt": stat()}, "2 dumps of statistics; name one file"),
    "no pass": ({"r_0.pt": records()}, "no forward pass was recorded"),
    "flat counts": ({"a.pt": stat(logical_count=np.ones(4, np.int32))}, "logical_count has shape (4,)"),
    "two ranks": ({"r_0.pt": records(record(), record(rank=1))}, "records of the ranks [0, 1]; a file is of one rank"),
    "a rank twice": ({"r_0.pt": records(record()), "r_1.pt": records(record())}, "rank 0 twice; a folder has to hold"),
    "another map": (
        {
            "r_0.pt": records(record()),
            "r_1.pt": records(record(rank=1), last_physical_to_logical_map=np.array([[1, 0, 2, 3]])),
        },
        "the ranks do not agree on last_physical_to_logical_map",
    ),
    "a flat map": (
        {"r_0.pt": records(record(), last_physical_to_logical_map=np.arange(4))},
        "last_physical_to_logical_map has shape (4,)",
    ),
    "a flat pass": (
        {"r_0.pt": records({"forward_pass_id": 3, "rank": 0, "global_physical_count": np.ones(4, np.int32)})},
        "pass 3: global_physical_count has shape (4,)",
    ),
    "flat tokens": (
        {"r_0.pt": records(record(topk_ids_of_layer=np.ones((3, 2), np.int32)))},
        "topk_ids_of_layer has shape (3, 2)",
    ),
    "another K": (
        {"r_0.pt": records(record(), record(forward_pass_id=1, topk_ids_of_layer=np.ones((1, 3, 3), np.int32)))},
        "records of different numbers of layers or of experts per token",
    ),
    "something else beside": ({"a.pt": stat(), "b.pt": {"x": np.ones(3)}}, "not a dump of SGLang's recorder"),
}


@pytest.mark.parametrize("name", SGLANG)
def test_dumps_of_sglang_that_do_not_go_together(tmp_path, name):
    files, says = SGLANG[name]
    for file, data in files.items():
        torch_writer.save(tmp_path / file, data)
    refused(tmp_path, says)


def safetensors(path, **arrays):
    header, body = {}, b""
    for name, array in arrays.items():
        header[name] = {
            "dtype": "I64",
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + array.nbytes],
        }
        body += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


TENSORRT = {
    "no number of experts": ({}, [{"0_3": 4}], 'no num_experts; a line such as {"num_experts": 256, ...}'),
    "a key that is none": ({"num_experts": 4}, [{"first": 4}], "the key 'first'; keys are"),
    "another layer of rank 1": (
        {"num_experts": 4},
        [{"0_3": 4}, {"0_4": 4}],
        "rank 1 has other iterations or layers than rank 0",
    ),
    "another width": ({"num_experts": 4}, [{"0_3": 5}], "0_3 has shape (5,), not (4,)"),
    "an iteration without a layer": (
        {"num_experts": 4},
        [{"0_3": 4, "0_4": 4, "1_3": 4}],
        "not every iteration has every layer",
    ),
    "a rank that is missing": ({"num_experts": 4, "ep_size": 2}, [{"0_3": 4}], "no rank1.safetensors"),
}


@pytest.mark.parametrize("name", TENSORRT)
def test_statistics_of_tensorrt_llm_that_do_not_go_together(tmp_path, name):
    meta, ranks, says = TENSORRT[name]
    (tmp_path / "meta_info.json").write_text(json.dumps(meta))
    for rank, widths in enumerate(ranks):
        rows = {key: np.ones(width, np.int64) for key, width in widths.items()}
        safetensors(tmp_path / f"rank{rank}.safetensors", **rows)
    refused(tmp_path, says)


def own(**changes):
    return {
        "schema_version": 1,
        "unit": "ids",
        "layers": [0],
        "n_experts": 4,
        "top_k": 2,
        "numbering": "model",
        "source": {"tool": "", "form": "", "sha256": ""},
        "notes": [],
    } | changes


OWN = {
    "a later version": (own(schema_version=2), {"ids": IDS}, "schema version 2; this moesim reads version 1"),
    "a unit without its array": (own(unit="counts"), {"ids": IDS}, "a trace of 'counts' over 4 experts without them"),
    "another number of layers": (own(layers=[0, 1]), {"ids": IDS}, "ids has shape (1, 3, 2)"),
    "gates of other tokens": (
        own(),
        {"ids": IDS, "gates": np.ones((1, 2, 2), np.float32)},
        "gates has shape (1, 2, 2)",
    ),
    "a gate that is no number": (
        own(),
        {"ids": IDS, "gates": np.full((1, 3, 2), np.nan)},
        "gates holds a number that is not finite",
    ),
    "an expert too many": (own(n_experts=3), {"ids": IDS}, "an expert id outside 0 to 2"),
    "a count below 0": (own(unit="counts"), {"counts": -np.ones((1, 1, 4), int)}, "a count below 0"),
}


@pytest.mark.parametrize("name", OWN)
def test_traces_of_our_own_form_whose_arrays_do_not_go_together(tmp_path, name):
    meta, arrays, says = OWN[name]
    np.savez(tmp_path / "r.npz", trace=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
    refused(tmp_path / "r.npz", says)


def test_parquet_files_that_do_not_go_together(tmp_path):
    def write(name, **columns):
        pa.parquet.write_table(pa.table(columns), tmp_path / name)

    write("a.parquet", layer=[0], expert=[1], count=[5])
    write("b.parquet", layer=[0], expert=[1], count=[5])
    refused(tmp_path, "2 Parquet files; names such as layer_03.parquet are needed")
    for name in ("a", "b"):
        (tmp_path / f"{name}.parquet").unlink()
    write("layer_01.parquet", expert_ids=[[0, 1]])
    write("layer_02.parquet", experts=[[0, 1]])
    refused(tmp_path, "files of different columns")


def test_lists_of_unequal_length_are_padded_with_no_expert(tmp_path):
    table = pa.table({"layer": [0, 0], "token": [0, 1], "expert_ids": [[0, 1], [2]]})
    pa.parquet.write_table(table, tmp_path / "r.parquet")
    trace = read_routing(tmp_path / "r.parquet", n_experts=4)
    assert trace.ids.tolist() == [[[0, 1], [2, -1]]]


def test_a_column_without_numbers_and_a_row_twice(tmp_path):
    (tmp_path / "r.csv").write_text("layer,expert,count\n0,1,5\n0,1,6\n")
    refused(tmp_path / "r.csv", "layer 0, expert 1 appears twice")
    (tmp_path / "s.csv").write_text("layer,expert,count\n0,1,many\n")
    refused(tmp_path / "s.csv", "s.csv:2: count is 'many'; a number is needed")
