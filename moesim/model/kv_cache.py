"""What a token leaves in the KV cache.

MLA caches one latent vector and one shared rotary key per layer; the others a key and a value per KV head.
Not modelled: scales of a quantised cache, paging waste, sliding windows.
"""

from moesim.errors import InputError

_SIZES = {
    "mla": ("kv_lora_rank", "rope_head_dim"),
    "mha": ("kv_heads", "head_dim"),
    "gqa": ("kv_heads", "head_dim"),
    "mqa": ("head_dim",),
}


def kv_cache_bytes(
    *,
    kind: str,
    layers: int,
    bytes_per_element: float,
    kv_lora_rank: int | None = None,
    rope_head_dim: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
) -> int:
    """Return the KV cache of one token over all layers, bytes.

    Args:
        kind: ``mla`` needs ``kv_lora_rank`` and ``rope_head_dim``: ``layers * (rank + rope) * bytes``;
            ``mha`` (one KV head per query head: give the number of heads) and ``gqa`` need ``kv_heads`` and
            ``head_dim``: ``layers * 2 * kv_heads * head_dim * bytes``; ``mqa`` is ``gqa`` with one KV head.
        layers: layers that keep a cache.
        bytes_per_element: 2 for BF16, 1 for FP8.
        kv_lora_rank: size of the MLA latent.
        rope_head_dim: size of MLA's shared rotary key.
        kv_heads: heads of keys and values.
        head_dim: size of one head.

    Raises:
        InputError: unknown kind, a size that the kind needs is missing or not positive, or one it has not.

    Source: DeepSeek-V2, table 1.
    """
    if kind not in _SIZES:
        raise InputError(f"unknown kind of attention {kind!r}", "kind", f"use one of {', '.join(_SIZES)}")
    given = {"kv_lora_rank": kv_lora_rank, "rope_head_dim": rope_head_dim, "kv_heads": kv_heads, "head_dim": head_dim}
    if kind == "mqa" and kv_heads == 1:
        del given["kv_heads"]
    for name, size in ({"layers": layers, "bytes_per_element": bytes_per_element} | given).items():
        needed = name not in given or name in _SIZES[kind]
        if needed and size is None:
            raise InputError(f"{kind} needs {name}", name)
        if not needed and size is not None:
            raise InputError(f"{kind} has no {name}", name, f"it has {' and '.join(_SIZES[kind])}")
        if size is not None and size <= 0:
            raise InputError(f"{name} must be more than 0, got {size!r}", name)
    if kind == "mla":
        elements = (kv_lora_rank or 0) + (rope_head_dim or 0)
    else:
        elements = 2 * (1 if kind == "mqa" else kv_heads or 0) * (head_dim or 0)
    return round(layers * elements * bytes_per_element)
