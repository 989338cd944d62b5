"""What a GPU holds, against sums by hand and the published deployments of DeepSeek-V3."""

import pytest

from moesim.errors import InputError
from moesim.model import load_model, rank_memory
from moesim.model.memory import ACTIVATION_BYTES, RUNTIME_BYTES

V3 = load_model("deepseek-v3")


@pytest.mark.parametrize(
    ("ep", "redundant", "slots", "weights_gb"),
    [
        (8, 0, 32, 102.6),
        (16, 32, 18, 66.2),
        (32, 32, 9, 42.8),
        (72, 32, 4, 29.8),
        (128, 0, 2, 24.6),
        (144, 32, 2, 24.6),
    ],
)
def test_weights_of_deepseek_v3_are_those_of_its_deployments(ep, redundant, slots, weights_gb):
    held = rank_memory(V3, ep=ep, total_bytes=80e9, redundant_experts=redundant)
    assert held.slots == slots
    assert (held.experts + held.other_weights) / 1e9 == pytest.approx(weights_gb, abs=0.05)


def test_one_rank_holds_the_whole_model():
    for name in ("deepseek-v2", "mixtral-8x7b", "qwen3-235b-a22b", "gpt-oss-120b"):
        spec = load_model(name)
        held = rank_memory(spec, ep=1, total_bytes=1e13, weight_bytes=2)
        assert held.experts + held.other_weights == pytest.approx(2 * spec.total_parameters, rel=1e-3)


def test_requests_fill_what_the_weights_leave():
    held = rank_memory(
        V3, ep=144, total_bytes=80e9, redundant_experts=32, requests=128, context=4096, message_tokens=128
    )
    layers = 61 + 1  # the multi-token-prediction layer has a cache of its own
    assert held.kv_cache == 128 * 4096 * layers * 1152
    assert held.buffers == 4 * 256 * 128 * (2 * 7168 + 16)
    used = held.experts + held.other_weights + held.buffers + RUNTIME_BYTES + ACTIVATION_BYTES
    assert held.free == pytest.approx(80e9 - used - held.kv_cache)
    assert held.requests_that_fit == int((80e9 - used) / (4096 * layers * 1152)) == 156
    more = rank_memory(
        V3, ep=144, total_bytes=80e9, redundant_experts=32, requests=157, context=4096, message_tokens=128
    )
    assert held.free > 0 > more.free


def test_weights_that_do_not_fit_leave_no_request():
    held = rank_memory(V3, ep=8, total_bytes=80e9, context=4096)
    assert held.requests_that_fit == 0 and held.free < 0


def test_a_window_bounds_the_cache_of_its_layers():
    spec = load_model("gpt-oss-120b")
    windowed = [one for one in spec.attentions if one.window]
    assert windowed
    short, long = (
        rank_memory(spec, ep=1, total_bytes=1e12, context=length).bytes_per_request for length in (128, 8192)
    )
    by_layer = sum(
        len(one.layers) * one.cache_elements * 2 * (min(8192, one.window) if one.window else 8192)
        for one in spec.attentions
    )
    assert long == by_layer
    assert short == 128 * spec.kv_cache_bytes_per_token()


def test_counts_below_zero_are_refused():
    with pytest.raises(InputError, match="are counts"):
        rank_memory(V3, ep=0, total_bytes=80e9)
