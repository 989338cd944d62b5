"""The routing of transformers models, against the models' own modules on tiny random configs."""

import numpy as np
import pytest

from moesim.errors import InputError, ResourceError
from moesim.record import record_routing
from moesim.routing import RouterSpec, route
from moesim.workload import read_routing

pytestmark = pytest.mark.lab

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")  # before it, experts are called one by one

E, K, LAYERS = 8, 2, 2
SIZES = {
    "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": LAYERS, "intermediate_size": 24, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FEW = {"num_experts_per_tok": K, "moe_intermediate_size": 16}
LOCAL = SIZES | FEW | {"num_local_experts": E}
PLAIN = SIZES | FEW | {"num_experts": E}
ROUTED = SIZES | FEW | {"n_routed_experts": E, "n_shared_experts": 1, "first_k_dense_replace": 1}
MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
GROUPS = {"n_group": 4, "topk_group": 2}
SOFTMAX, SIGMOID = RouterSpec("v1", E, K), RouterSpec("v3", E, K)
SIGMOID_OF_GROUPS = RouterSpec("v3", E, K, n_groups=4, top_groups=2)

# Family: the sizes of its config under its own names, its router, the layers that have experts.
FAMILIES = {
    "mixtral": (LOCAL, SOFTMAX, (0, 1)),
    "qwen2_moe": (PLAIN | {"shared_expert_intermediate_size": 16}, SOFTMAX, (0, 1)),
    "qwen3_moe": (PLAIN | {"mlp_only_layers": [0]}, SOFTMAX, (1,)),
    "qwen3_next": (
        PLAIN | {"shared_expert_intermediate_size": 16, "head_dim": 8, "linear_num_value_heads": 4,
                 "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
                 "layer_types": ["linear_attention", "full_attention"]},
        SOFTMAX, (0, 1),
    ),
    "olmoe": (PLAIN, SOFTMAX, (0, 1)),
    "deepseek_v2": (
        ROUTED | MLA | GROUPS | {"topk_method": "group_limited_greedy", "head_dim": 4},
        RouterSpec("v2", E, K, n_groups=4, top_groups=2), (1,),
    ),
    "deepseek_v3": (ROUTED | MLA | GROUPS, SIGMOID_OF_GROUPS, (1,)),
    "glm4_moe": (ROUTED | GROUPS | {"head_dim": 8}, SIGMOID_OF_GROUPS, (1,)),
    "gpt_oss": (LOCAL | {"head_dim": 8}, SOFTMAX, (0, 1)),
    "minimax": (LOCAL | {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}, SOFTMAX, (0, 1)),
    "minimax_m2": (LOCAL | {"head_dim": 8, "rotary_dim": 8}, SIGMOID, (0, 1)),
    "ernie4_5_moe": (
        SIZES | {"moe_num_experts": E, "moe_k": K, "moe_intermediate_size": 16, "moe_layer_start_index": 1},
        RouterSpec("v3", E, K, score="softmax"), (1,),
    ),
    "hunyuan_v1_moe": (SIZES | {"num_experts": E, "moe_topk": K, "head_dim": 8}, SOFTMAX, (0, 1)),
    "granitemoe": (LOCAL, SOFTMAX, (0, 1)),
    "jamba": (
        PLAIN | {"expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 2, "attn_layer_offset": 1,
                 "mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False},
        SOFTMAX, (1,),
    ),
    "llama4_text": (LOCAL | {"intermediate_size_mlp": 24, "head_dim": 8, "moe_layers": [1]}, SOFTMAX, (1,)),
    "afmoe": (PLAIN | {"num_dense_layers": 1, "head_dim": 8, "layer_types": ["full_attention"] * 2}, SIGMOID, (1,)),
    "lfm2_moe": (PLAIN | {"num_dense_layers": 1, "layer_types": ["conv", "full_attention"]}, SIGMOID, (1,)),
    "gemma4_text": (
        PLAIN | {"enable_moe_block": True, "top_k_experts": K, "head_dim": 8, "global_head_dim": 8,
                 "hidden_size_per_layer_input": 0, "layer_types": ["sliding_attention", "full_attention"]},
        SOFTMAX, (0, 1),
    ),
    "longcat_flash": (
        SIZES | MLA | {"n_routed_experts": 6, "zero_expert_num": 2, "moe_topk": K, "num_layers": 1,
                       "ffn_hidden_size": 24, "expert_ffn_hidden_size": 16, "head_dim": 4},
        RouterSpec("v3", E, K, score="softmax"), (0,),
    ),
}  # fmt: skip
SEES_NO_IDS = {"llama4_text"}  # its experts compute every token, scaled by 0


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(family):
    try:
        config = transformers.AutoConfig.for_model(family, **FAMILIES[family][0])
    except ValueError:
        pytest.skip(f"this transformers has no {family}")
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        # Gates start at zero, or so small that every token goes the same way.
        if name.split(".")[-2] in ("gate", "router", "classifier", "wg", "proj", "layer") and tensor.ndim == 2:
            torch.nn.init.normal_(tensor, std=0.7)
        if name.endswith(("correction_bias", "expert_bias", "router.bias")):
            torch.nn.init.normal_(tensor, std=0.1)
    return model


def batch():
    ids = torch.randint(3, 96, (3, 7), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    mask[2, :2] = 0
    return {"input_ids": ids, "attention_mask": mask}


def listen(module, heard):
    """Keep what a module is called with, by replacing its function rather than by a hook."""
    plain = module.forward

    def forward(*args, **kwargs):
        heard.append([x.clone() for x in args if torch.is_tensor(x)])
        return plain(*args, **kwargs)

    module.forward = forward


def gates_of(model):
    """Each gate's module and its linear map."""
    holders = ("proj", "gate", "wg", "classifier", "layer")
    for name, module in model.named_modules():
        if name.endswith((".gate", ".router")) and not name.endswith(".router.gate"):
            inner = [getattr(module, holder) for holder in holders if hasattr(module, holder)]
            yield module, (*inner, module)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_experts_of_the_trace_are_those_that_the_model_used(family, tmp_path):
    _, spec, layers = FAMILIES[family]
    model, given = tiny(family), batch()
    used = []
    for name, module in model.named_modules():
        if name.endswith(".experts"):
            listen(module, used)
    with record_routing(model, tmp_path / "t.npz"), torch.no_grad():
        model(**given, use_cache=False)
    trace = read_routing(tmp_path / "t.npz")
    kept = given["attention_mask"].bool().flatten().numpy()
    assert trace.layers == layers
    assert (trace.n_experts, trace.top_k, trace.tokens) == (E, K, 17)
    assert trace.sequence.tolist() == [0] * 7 + [1] * 5 + [2] * 5
    for row in range(len(layers)):
        bias = None if trace.bias is None else trace.bias[row]
        assert bias is None or bias.any()
        ours = np.sort(route(trace.logits[row], spec, bias).expert_ids, axis=1)
        assert len(np.unique(ours)) > 4
        if family not in SEES_NO_IDS:
            theirs = np.sort(used[row][1].numpy()[kept], axis=1)
            np.testing.assert_array_equal(np.sort(trace.ids[row], axis=1), theirs)
            np.testing.assert_array_equal(ours, theirs)
    assert (trace.ids is None) == (family in SEES_NO_IDS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "autocast"])
def test_logits_are_the_product_of_what_the_gate_is_given(family, precision, tmp_path):
    model, given = tiny(family), batch()
    model = model.bfloat16() if precision == "bfloat16" else model
    heard, maps = [], []
    for gate, linear in gates_of(model):
        # Where the linear map is not called itself, the gate is given the same.
        listen(gate if family == "longcat_flash" else linear, heard)
        maps.append(linear)
    with (
        record_routing(model, tmp_path / "t.npz"),
        torch.no_grad(),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"),
    ):
        model(**given, use_cache=False)
    trace = read_routing(tmp_path / "t.npz")
    kept = given["attention_mask"].bool().flatten()
    assert len(maps) == len(trace.layers)
    for logits, linear, (hidden, *_) in zip(trace.logits, maps, heard, strict=True):
        wanted = hidden.reshape(-1, 32)[kept].double() @ linear.weight.double().T
        if getattr(linear, "bias", None) is not None:
            wanted = wanted + linear.bias.double()
        np.testing.assert_allclose(logits, wanted.detach().numpy(), atol=1e-5)


def test_what_is_generated_goes_on_its_sequence(tmp_path):
    model = tiny("qwen3_moe")
    given = batch()
    given["attention_mask"][:] = 1
    given["attention_mask"][2, :2] = 0
    with record_routing(model, tmp_path / "steps.npz") as recorder:
        text = model.generate(**given, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    # The last token is chosen, but never goes through the model.
    assert recorder.tokens == 3 * 7 - 2 + 3 * 3
    mask = torch.cat([given["attention_mask"], torch.ones(3, 3, dtype=torch.long)], dim=1)
    with record_routing(model, tmp_path / "once.npz"), torch.no_grad():
        model(input_ids=text[:, :-1], attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
    steps, once = read_routing(tmp_path / "steps.npz"), read_routing(tmp_path / "once.npz")
    np.testing.assert_array_equal(steps.sequence, once.sequence)
    np.testing.assert_allclose(steps.logits, once.logits, atol=1e-4)
    assert steps.step.tolist() == ([0] * 7 + [1, 2, 3]) * 2 + [0] * 5 + [1, 2, 3]


def test_calls_append_and_each_has_sequences_of_its_own(tmp_path):
    model, given = tiny("olmoe"), batch()
    with record_routing(model, tmp_path / "t.npz") as recorder, torch.no_grad():
        model(given["input_ids"][:1])
        assert recorder.tokens == 7
        model(given["input_ids"], given["attention_mask"])
        model(inputs_embeds=model.get_input_embeddings()(given["input_ids"][:1]))
    trace = read_routing(tmp_path / "t.npz")
    assert trace.tokens == recorder.tokens == 7 + 17 + 7
    assert np.bincount(trace.sequence).tolist() == [7, 7, 5, 5, 7]
    for again in (slice(7, 14), slice(24, 31)):
        np.testing.assert_allclose(trace.logits[:, :7], trace.logits[:, again], atol=1e-5)
    assert any("4 places of padding" in note for note in trace.notes)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_ids_alone_and_half_precision_hold_the_same_routing(tmp_path):
    model, given = tiny("deepseek_v3"), batch()
    traces = {}
    for name, options in {"full": {}, "half": {"dtype": "float16"}, "ids": {"keep": "ids"}}.items():
        with record_routing(model, tmp_path / f"{name}.npz", **options), torch.no_grad():
            model(**given)
        traces[name] = read_routing(tmp_path / f"{name}.npz")
    for trace in traces.values():
        np.testing.assert_array_equal(trace.expert_counts(), traces["full"].expert_counts())
        assert trace.expert_counts().sum() == 17 * K
    assert traces["ids"].unit == "ids"
    assert traces["ids"].logits is None
    np.testing.assert_allclose(traces["half"].logits, traces["full"].logits, rtol=1e-3)
    assert (tmp_path / "half.npz").stat().st_size < (tmp_path / "full.npz").stat().st_size


def test_a_full_memory_is_said_and_nothing_is_written(tmp_path):
    model, given = tiny("olmoe"), batch()
    call = 2 * 17 * (E * 4 + K * 2)
    with (
        pytest.raises(InputError, match=r"1\.224 kB are full at 17 tokens; .*keep='ids'"),
        record_routing(model, tmp_path / "t.npz", limit=f"{call}B"),
        torch.no_grad(),
    ):
        for _ in range(2):
            model(**given)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_gates_is_refused_with_what_was_looked_at(tmp_path):
    dense = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    with pytest.raises(InputError, match=r"no gate found in LlamaForCausalLM.*names no number of experts"):
        record_routing(dense, tmp_path / "t.npz").__enter__()
    model = tiny("mixtral")
    model.config.num_local_experts = 16
    with pytest.raises(InputError, match=r"saw model\.layers\.0\.mlp\.gate \[8, 32\].*one of \[.*16\]"):
        record_routing(model, tmp_path / "t.npz").__enter__()


def test_mistakes_are_said_at_once_and_leave_no_file(tmp_path):
    model = tiny("mixtral")
    with pytest.raises(InputError, match="use logits or ids"):
        record_routing(model, tmp_path / "t.npz", keep="gates").__enter__()
    with pytest.raises(InputError, match="does not end in"):
        record_routing(model, tmp_path / "t.pt").__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot write there"):
        record_routing(model, tmp_path / "file" / "t.npz").__enter__()
    with pytest.raises(InputError, match="no token was recorded"), record_routing(model, tmp_path / "t.npz"):
        pass
    with pytest.raises(ZeroDivisionError), record_routing(model, tmp_path / "t.npz"):
        model(**batch())
        _ = 1 / 0
    with (
        pytest.raises(InputError, match="no ids were seen"),
        record_routing(tiny("llama4_text"), tmp_path / "t.npz", keep="ids") as recorder,
    ):
        recorder._model(**batch())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
