"""What is odd about each recorder's form: maps, padding, missing ranks, repeated tokens, own names."""

import base64
import json

import forms
import numpy as np
import pytest
import torch_writer

from moesim.dumps import read_routing
from moesim.errors import InputError


def test_steps_of_the_recorder_without_a_count_and_dense_layers_are_left_out_and_said(tmp_path):
    trace = read_routing(forms.sglang_stat(tmp_path, forms.routing()))
    assert trace.counts.shape[0] == 3 and trace.layers == (2, 3, 4)
    said = " ".join(trace.notes)
    assert "layers 0-1 have no count" in said and "2 of 5 steps are empty" in said and "order is no time" in said
    assert (trace.source.tool, trace.source.form) == ("SGLang", "stat")


def test_counts_given_to_the_engine_as_json_are_read_too(tmp_path):
    (tmp_path / "init.json").write_text(json.dumps({"logical_count": [[0, 0], [3, 4]]}))
    trace = read_routing(tmp_path / "init.json")
    assert trace.expert_counts().tolist() == [[3, 4]] and trace.layers == (1,)


def test_the_file_of_a_rank_that_is_missing_is_named(tmp_path):
    folder = forms.sglang_per_token(tmp_path, forms.routing())
    first, second = sorted(folder.iterdir())
    with pytest.raises(InputError, match="one rank of 2; give the folder"):
        read_routing(second)
    first.unlink()
    with pytest.raises(InputError, match="no file of rank 0"):
        read_routing(folder)


def test_a_last_rank_that_is_missing_is_known_from_what_the_others_recorded(tmp_path):
    folder = forms.sglang_per_token(tmp_path, forms.routing())
    sorted(folder.iterdir())[1].unlink()
    with pytest.raises(InputError, match="no file of rank 1"):
        read_routing(folder)


def test_ranks_that_all_see_the_same_tokens_are_counted_once(tmp_path):
    routing = forms.routing()
    ids = np.full((5, 40, 8), -1, np.int32)
    ids[2:, :, :2] = routing.ids
    for rank in range(2):
        record = {"forward_pass_id": 0, "rank": rank, "topk_ids_of_layer": ids}
        data = {"records": [record], "last_physical_to_logical_map": np.tile(np.arange(8, dtype=np.int32), (5, 1))}
        torch_writer.save(tmp_path / f"expert_distribution_recorder_1_{rank}.pt", data)
    trace = read_routing(tmp_path)
    assert np.array_equal(trace.expert_counts(), routing.counts)
    assert any("1 of 2 records repeat" in note for note in trace.notes)


def test_that_earlier_passes_may_have_had_another_map_is_said(tmp_path):
    trace = read_routing(forms.sglang_per_pass(tmp_path, forms.routing()))
    assert any("last map of the recording" in note for note in trace.notes)


def test_base64_needs_a_shape_and_says_so(tmp_path):
    routing = forms.routing(masked=False)
    raw = base64.b64encode(routing.with_dense(routing.ids).transpose(1, 0, 2).astype(np.uint8).tobytes()).decode()
    meta = {"routed_experts": raw, "routed_experts_dtype": "uint8"}
    (tmp_path / "r.json").write_text(json.dumps({"meta_info": meta}))
    with pytest.raises(InputError, match="400 numbers whose shape is not in the response; say --top-k and --layers"):
        read_routing(tmp_path / "r.json", n_experts=8)
    trace = read_routing(tmp_path / "r.json", n_experts=8, top_k=2, layers=range(5))
    assert np.array_equal(trace.expert_counts(), routing.counts) and trace.layers == (2, 3, 4)


def test_a_mask_of_valid_tokens_leaves_the_others_without_experts(tmp_path):
    value = {"values": [[[0, 1]], [[0, 0]]], "valid_mask": [True, False]}
    (tmp_path / "r.json").write_text(json.dumps({"meta_info": {"routed_experts": value}}))
    trace = read_routing(tmp_path / "r.json", n_experts=4)
    assert trace.ids.tolist() == [[[0, 1], [-1, -1]]]


def test_requests_of_a_line_each_are_sequences(tmp_path):
    lines = [json.dumps({"outputs": [{"routed_experts": [[[0, 1]], [[2, 3]]]}]}) for _ in range(3)]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    trace = read_routing(tmp_path / "r.jsonl", n_experts=4)
    assert trace.sequence.tolist() == [0, 0, 1, 1, 2, 2]


def test_an_array_of_tokens_before_layers_is_not_taken_for_one_of_layers_before_tokens(tmp_path):
    routing = forms.routing(masked=False)
    turned = routing.with_dense(routing.ids).transpose(1, 0, 2)
    np.save(tmp_path / "r.npy", turned)
    with pytest.raises(InputError, match="say --axes tokens,layers,k"):
        read_routing(tmp_path / "r.npy", unit="ids")
    np.save(tmp_path / "short.npy", turned[:4])  # fewer tokens than layers: the dense layers give it away
    with pytest.raises(InputError, match="tokens before layers"):
        read_routing(tmp_path / "short.npy", unit="ids")
    trace = read_routing(tmp_path / "r.npy", axes=("tokens", "layers", "k"), unit="ids")
    assert np.array_equal(trace.expert_counts(), routing.counts)
    assert np.array_equal(read_routing(tmp_path / "r.npy", axes=("tokens", "layers", "k"), unit="ids").ids, routing.ids)


def test_whole_numbers_without_a_name_are_refused_unless_only_one_reading_fits(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1, 2, 3, 4], [4, 3, 2, 1]]))
    with pytest.raises(InputError, match="expert ids or counts"):
        read_routing(tmp_path / "x.npy")
    assert read_routing(tmp_path / "x.npy", unit="counts").unit == "counts"
    rng = np.random.default_rng(0)
    many = np.argsort(rng.random((600, 64)), axis=1)[:, :6]
    np.save(tmp_path / "x.npy", many)
    assert read_routing(tmp_path / "x.npy", n_experts=64).unit == "ids"
    np.save(tmp_path / "x.npy", rng.poisson(3, (26, 64)))
    assert read_routing(tmp_path / "x.npy").unit == "counts"
    np.save(tmp_path / "x.npy", rng.normal(size=(26, 64)))
    assert read_routing(tmp_path / "x.npy").unit == "logits"


def test_logits_and_ids_of_one_file_are_both_kept(tmp_path):
    routing = forms.routing(masked=False)
    np.savez(tmp_path / "b.npz", router_logits=routing.logits, topk_ids=routing.ids)
    trace = read_routing(tmp_path / "b.npz")
    assert trace.unit == "logits" and np.array_equal(trace.ids, routing.ids)
    assert np.array_equal(trace.expert_counts(), routing.counts)


def test_probabilities_become_logits_and_it_is_said(tmp_path):
    logits = np.random.default_rng(0).normal(size=(2, 6, 4))
    odds = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.savez(tmp_path / "p.npz", router_logits=odds)
    trace = read_routing(tmp_path / "p.npz", top_k=2)
    assert any("probabilities after a softmax" in note for note in trace.notes)
    shifted = trace.logits - trace.logits.max(axis=2, keepdims=True)
    assert np.allclose(shifted, logits - logits.max(axis=2, keepdims=True), atol=1e-5)


def test_tensors_of_each_moe_layer_are_logits(tmp_path):
    logits = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    torch_writer.save(tmp_path / "router_logits.pt", tuple(logits))
    assert np.array_equal(read_routing(tmp_path / "router_logits.pt").logits, logits)


def test_bfloat16_and_transposed_tensors_are_read_as_they_are_meant(tmp_path):
    values = np.array([[1.5, -2, 0.25], [3, 4, -0.5]], np.float32)
    torch_writer.save(tmp_path / "x.pt", {"logits": forms.bfloat16(values).view(torch_writer.Bfloat16)})
    assert read_routing(tmp_path / "x.pt").logits.tolist() == [values.tolist()]
    torch_writer.save(tmp_path / "y.pt", {"logits": values.T}, protocol=4)
    assert read_routing(tmp_path / "y.pt").logits.tolist() == [values.T.tolist()]


def test_bf16_logits_that_tie_leave_the_counts_to_the_ids_and_say_how_many_differ(tmp_path):
    routing = forms.routing(masked=False)
    tied = forms.Routing(routing.ids, routing.n_experts, routing.dense, np.zeros_like(routing.logits))
    trace = read_routing(forms.megatron_logits(tmp_path, tied))
    assert np.array_equal(trace.expert_counts(), routing.counts)
    expected = np.mean(np.any(np.sort(routing.ids, axis=2) != [0, 1], axis=2))
    assert any(f"other experts for {expected:.1%} of the tokens" in note for note in trace.notes)


def test_the_bias_of_a_trainers_router_comes_with_its_logits(tmp_path):
    routing = forms.routing(masked=False)
    folder = forms.megatron_logits(tmp_path, routing)
    bias = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    state = {
        layer: {"weight": np.ones((8, 4), np.float32), "expert_bias": row, "score_function": "sigmoid", "topk": 2}
        for layer, row in zip(routing.numbers, bias, strict=True)
    }
    torch_writer.save(folder / "router_state_rank0.pt", state)
    trace = read_routing(folder)
    assert np.array_equal(trace.bias, bias)
    assert np.array_equal(trace.step, np.repeat([0, 1], 20)) and np.array_equal(trace.rank, np.repeat([0, 1, 0, 1], 10))


def test_a_rank_of_a_trainer_that_is_missing_is_named(tmp_path):
    folder = forms.megatron(tmp_path, forms.routing(masked=False), ranks=3)
    (folder / "router_trace_rank1.jsonl").unlink()
    with pytest.raises(InputError, match=r"no router_trace_rank1\.jsonl"):
        read_routing(folder)


def test_a_rank_of_statistics_that_is_missing_is_named(tmp_path):
    folder = forms.tensorrt_llm(tmp_path, forms.routing(), ranks=3)
    with pytest.raises(InputError, match="give the folder with all ranks"):
        read_routing(folder / "rank1.safetensors")
    (folder / "rank1.safetensors").unlink()
    with pytest.raises(InputError, match=r"no rank1\.safetensors"):
        read_routing(folder)
    (folder / "meta_info.json").write_text('{"num_experts": 8, "num_experts_per_token": 2, "ep_size": 4}')
    with pytest.raises(InputError, match=r"no rank1\.safetensors"):
        read_routing(folder)


def test_a_model_in_gguf_is_no_importance_matrix(tmp_path):
    with pytest.raises(InputError, match="a GGUF file of the type 'model'"):
        read_routing(forms.gguf(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": np.ones((2, 2))}, kind="model"))
    (tmp_path / "imatrix.dat").write_bytes(b"\x02\0\0\0aaaa")
    with pytest.raises(InputError, match="old form has no counts of experts"):
        read_routing(tmp_path / "imatrix.dat")


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([[0, 1], [3, 3]], "layer 0: token 1 selects an expert twice"),
        ([[0, 1], [0, 4]], "token 1 selects .*outside 0 to 3"),
        ([[0, 1], [0, -2]], "outside 0 to 3; -1 stands for none"),
        ([[-1, -1], [-1, -1]], "no token selects an expert"),
    ],
)
def test_ids_that_no_router_gives_are_refused(tmp_path, ids, says):
    np.savez(tmp_path / "i.npz", topk_idx=np.array(ids))
    with pytest.raises(InputError, match=says):
        read_routing(tmp_path / "i.npz", n_experts=4)


def test_shares_are_counts_too(tmp_path):
    np.savez(tmp_path / "c.npz", expert_load=np.array([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4]]))
    counts = read_routing(tmp_path / "c.npz").expert_counts()
    assert np.allclose(counts / counts.sum(axis=1, keepdims=True), [[0.5, 0.25, 0.25], [0.2, 0.4, 0.4]], atol=1e-6)


def test_counts_of_more_experts_than_the_model_has_are_taken_for_slots(tmp_path):
    np.savez(tmp_path / "c.npz", counts=np.ones((2, 12)))
    with pytest.raises(InputError, match="counts of 12 experts, the model has 8; are these slots"):
        read_routing(tmp_path / "c.npz", n_experts=8)
    trace = read_routing(tmp_path / "c.npz", n_experts=8, slot_expert=np.arange(12) % 8)
    assert trace.expert_counts().tolist() == [[2] * 4 + [1] * 4] * 2


def test_a_recording_of_our_own_is_a_trace_too():
    from moesim.recording_format import recording_path

    trace = read_routing(recording_path("tiny-v3"))
    assert trace.unit == "logits" and trace.bias.any() and trace.top_k
    assert (trace.expert_counts().sum(axis=1) == trace.tokens * trace.top_k).all()
