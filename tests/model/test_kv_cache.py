import pytest

from moesim.errors import InputError
from moesim.model import kv_cache_bytes


def test_mla_caches_one_latent_and_one_rotary_key_per_layer():
    # DeepSeek-V3: 61 layers x (512 + 64) x 2 bytes
    assert kv_cache_bytes(kind="mla", layers=61, kv_lora_rank=512, rope_head_dim=64, bytes_per_element=2) == 70_272


def test_gqa_caches_a_key_and_a_value_per_kv_head():
    # Llama 70B: 80 layers x 2 x 8 x 128 x 2 bytes
    assert kv_cache_bytes(kind="gqa", layers=80, kv_heads=8, head_dim=128, bytes_per_element=2) == 327_680


def test_mqa_is_gqa_with_one_kv_head():
    gqa = kv_cache_bytes(kind="gqa", layers=10, kv_heads=1, head_dim=64, bytes_per_element=2)
    assert kv_cache_bytes(kind="mqa", layers=10, head_dim=64, bytes_per_element=2) == gqa
    assert kv_cache_bytes(kind="mqa", layers=10, kv_heads=1, head_dim=64, bytes_per_element=2) == gqa


def test_mha_is_gqa_with_as_many_kv_heads_as_heads():
    sizes = {"layers": 28, "kv_heads": 16, "head_dim": 128, "bytes_per_element": 2}
    assert kv_cache_bytes(kind="mha", **sizes) == kv_cache_bytes(kind="gqa", **sizes) == 229_376


def test_fp8_halves_the_cache():
    sizes = {"kind": "mla", "layers": 61, "kv_lora_rank": 512, "rope_head_dim": 64}
    assert 2 * kv_cache_bytes(**sizes, bytes_per_element=1) == kv_cache_bytes(**sizes, bytes_per_element=2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kind": "mlaa"}, "unknown kind of attention 'mlaa'"),
        ({"kind": "mla", "kv_lora_rank": 512}, "mla needs rope_head_dim"),
        ({"kind": "gqa", "head_dim": 128}, "gqa needs kv_heads"),
        ({"kind": "gqa", "head_dim": 128, "kv_heads": 8, "kv_lora_rank": 1}, "gqa has no kv_lora_rank"),
        ({"kind": "mqa", "head_dim": 128, "kv_heads": 8}, "mqa has no kv_heads"),
        ({"kind": "mqa", "head_dim": 0}, "head_dim must be more than 0"),
        ({"kind": "mqa", "head_dim": 4, "layers": -1}, "layers must be more than 0"),
    ],
)
def test_a_size_that_is_missing_or_foreign_to_the_kind_is_refused(arguments, says):
    with pytest.raises(InputError, match=says):
        kv_cache_bytes(**({"layers": 2, "bytes_per_element": 2} | arguments))
