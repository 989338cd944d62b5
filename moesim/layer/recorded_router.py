"""The router beside the one that recorded logits were trained with, and the bias that it begins with."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.bounded_text import number
from moesim.broken_files import content, reading
from moesim.errors import InputError
from moesim.layer.parts import Parts
from moesim.numpy_file import read_array
from moesim.workload import Batch

_MOST_BIAS_BYTES = 10**6


def counterfactuals(parts: Parts, trained: dict[str, object]) -> tuple[str, ...]:
    """In which ways the router differs from the one that the recorded logits were trained with, in words."""
    found = []
    router = parts.router
    for name, used in (("kind", router.kind), ("top_k", router.top_k)):
        if name in trained and trained[name] != used:
            found.append(f"{name} {used} on logits trained with {trained[name]}")
    groups, limit = int(str(trained.get("n_groups", 1))), int(str(trained.get("top_groups", 1)))
    trained_limit = f"{limit} of {groups} groups" if limit < groups else "no group limit"
    used_limit = f"{router.top_groups} of {router.n_groups} groups" if router.limited else "no group limit"
    if trained_limit != used_limit:
        found.append(f"{used_limit} on logits trained with {trained_limit}")
    if trained.get("kind") == "v3" and parts.bias == "zero":
        found.append("bias off on logits trained with it")
    return tuple(found)


def first_bias(parts: Parts, batch: Batch) -> dict[int, NDArray[np.float32] | None]:
    """Return the bias of each layer's router before the first step: as recorded, none, or from a file."""
    if parts.router.kind != "v3" or parts.bias == "zero":
        return dict.fromkeys(batch.layers)
    if parts.bias == "recorded":
        return {layer: batch.bias.get(layer) for layer in batch.layers}
    return {layer: read_bias(parts) for layer in batch.layers}


def read_bias(parts: Parts) -> NDArray[np.float32]:
    """Read the bias file that the scenario names: one number per expert, ``.npy`` or one per line of text.

    Raises:
        InputError: not such a file, another number of experts, or a value that is not finite.
    """
    path = Path(parts.bias)
    raw: NDArray[Any]
    with reading(path, "one number per expert", "not readable as numbers"):
        if path.suffix == ".npy":
            raw = read_array(path, "bias", most_bytes=_MOST_BIAS_BYTES)
        else:
            raw = np.array([number(word) for word in content(path, _MOST_BIAS_BYTES).decode().split()])
    if raw.shape != (parts.router.n_experts,) or raw.dtype.kind not in "iuf" or not np.isfinite(raw).all():
        raise InputError(
            f"a bias of shape {raw.shape} and type {raw.dtype}",
            where=str(path),
            fix=f"give {parts.router.n_experts} finite numbers, one per expert",
        )
    return raw.astype(np.float32)
