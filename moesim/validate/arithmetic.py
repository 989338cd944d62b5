"""Published figures that are sums, not measurements: KV-cache sizes, and DeepSeek's bound on time per output token."""

import numpy as np

from moesim.errors import InputError
from moesim.model import kv_cache_bytes
from moesim.network import solve_flows
from moesim.validate.published_row import KV_CACHE, TPOT, Row

# Insights into DeepSeek-V3 (ISCA 2025), table 1: BF16; layers, KV heads, head dimension.
_CACHES: dict[str, dict[str, int | str]] = {
    "deepseek-v3": {"kind": "mla", "layers": 61, "kv_lora_rank": 512, "rope_head_dim": 64},
    "qwen2.5-72b": {"kind": "gqa", "layers": 80, "kv_heads": 8, "head_dim": 128},
    "llama-3.1-405b": {"kind": "gqa", "layers": 126, "kv_heads": 8, "head_dim": 128},
}
# The same paper, section 2.3.2: 32 tokens to nine experts each, 7,000 one-byte elements to them and two-byte ones
# back, two micro-batches in each of 61 layers; no copy is saved, nothing but bytes takes time.
_TOKENS, _EXPERTS, _HIDDEN, _MICRO_BATCHES, _LAYERS = 32, 9, 7000, 2, 61
_BANDWIDTH = {"ib-50GBps": 50e9, "gb200-900GBps": 900e9}


def computed(row: Row) -> float:
    """Compute the figure of an ``arithmetic`` row.

    Raises:
        InputError: none of those known.
    """
    case = row.key.rsplit("case=", 1)[-1]
    if row.quantity == KV_CACHE and case in _CACHES:
        return float(kv_cache_bytes(bytes_per_element=2, **_CACHES[case]))  # type: ignore[arg-type]
    if row.quantity == TPOT and case in _BANDWIDTH:
        return _tpot_s(_BANDWIDTH[case]) * 1e3
    raise InputError(f"no figure of this name: {row.key}", where=row.table)


def _tpot_s(bandwidth: float) -> float:
    """Time per output token with one port that everything leaves by, dispatch and combine one after the other."""
    copies = _TOKENS * _EXPERTS
    one = np.arange(copies + 1)
    port = np.zeros(copies, np.int32)
    both = 0.0
    for element_bytes in (1, 2):
        size = np.full(copies, _HIDDEN * element_bytes, float)
        both += float(solve_flows([bandwidth], [0.0], one, port, size, np.zeros(copies)).max())
    return both * _MICRO_BATCHES * _LAYERS
