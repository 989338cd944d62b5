"""Experts returned with a request: SGLang's ``meta_info.routed_experts`` and vLLM's ``routed_experts``.

Both are [tokens, layers, k]. SGLang writes base64 of the plain bytes, without their shape: what is not told follows
from the number of tokens where the response has it. vLLM gives arrays: of all layers with the dense ones as zeros
(2025), or of the MoE layers alone, the prompt's apart from the generated tokens' (from 0.21). The last generated
token has no routing.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps.routing_trace import RoutingTrace, Source, Told, trace_of_ids
from moesim.errors import InputError

NAMES = ("prompt_routed_experts", "routed_experts")
_DTYPES = ("int32", "uint8", "uint16", "int16", "uint32", "int64")


def responses_in(data: Any) -> list[Mapping[str, Any]]:
    """Return the responses that hold routed experts, in a JSON document or a list of them."""
    found: list[Mapping[str, Any]] = []
    for item in data if isinstance(data, list) else [data]:
        if not isinstance(item, Mapping):
            continue
        if isinstance(item.get("meta_info"), Mapping) and item["meta_info"].get("routed_experts") is not None:
            found.append(item["meta_info"])
        elif any(item.get(name) is not None for name in NAMES):
            found.append(item)
        else:
            # A completion of vLLM: the request holds the prompt's, its outputs the generated tokens'.
            for output in item.get("outputs") or item.get("choices") or ():
                if isinstance(output, Mapping) and any(output.get(name) is not None for name in NAMES):
                    found.append({name: item.get(name) for name in NAMES[:1]} | dict(output))
    return found


def read_responses(responses: Sequence[Mapping[str, Any]], told: Told, where: str) -> RoutingTrace:
    """Return the trace of one or several responses, a sequence each.

    Raises:
        InputError: the shape is neither in the response nor told.
    """
    tool = "SGLang" if isinstance(responses[0].get(NAMES[1]), str | dict) else "vLLM"
    parts: list[NDArray[Any]] = []
    for number, response in enumerate(responses):
        arrays = [_array(response[name], response, told, f"{where}: response {number}")
                  for name in NAMES if response.get(name) is not None]  # fmt: skip
        parts.append(np.concatenate(arrays))
    return read_arrays(parts, told, Source(tool, "routed experts per request"), where)


def read_arrays(parts: Sequence[NDArray[Any]], told: Told, source: Source, where: str) -> RoutingTrace:
    """Return the trace of arrays [tokens, layers, k], a sequence each."""
    if len({part.shape[1:] for part in parts}) > 1:
        raise InputError(f"responses of the shapes {sorted({part.shape[1:] for part in parts})}", where)
    ids = np.concatenate(parts).transpose(1, 0, 2)
    dense = [bool((rows == 0).all()) for rows in ids] if ids.shape[2] > 1 else []
    known: dict[str, Any] = {}
    if not any(dense) and told.layers is None:
        known["numbering"] = "moe"
        known["notes"] = ("no layer is dense: layers are numbered among the MoE layers",)
    sequence = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    return trace_of_ids(np.ascontiguousarray(ids), range(len(ids)), told, source, where, sequence=sequence, **known)


def _array(value: Any, response: Mapping[str, Any], told: Told, where: str) -> NDArray[Any]:
    """One response's ids [tokens, layers, k]."""
    mask = None
    if isinstance(value, Mapping):
        value, mask = value.get("values"), value.get("valid_mask")
    if not isinstance(value, str):
        ids = np.asarray(value)
        if ids.ndim != 3 or ids.dtype.kind not in "iu":
            raise InputError(f"routed_experts has shape {ids.shape} of {ids.dtype}", where, "[tokens, layers, k]")
    else:
        dtype = str(response.get("routed_experts_dtype") or "int32").removeprefix("torch.")
        if dtype not in _DTYPES:
            raise InputError(f"routed_experts_dtype is {dtype!r:.30}", where, f"one of {', '.join(_DTYPES)}")
        try:
            flat = np.frombuffer(base64.b64decode(value, validate=True), dtype)
        except (binascii.Error, ValueError) as error:
            raise InputError(f"routed_experts is no base64 of {dtype}: {error}", where) from None
        ids = flat.reshape(_shape(len(flat), response, told, where))
    if mask is not None:
        valid = np.asarray(mask, bool)
        if valid.shape != ids.shape[: valid.ndim]:
            raise InputError(f"valid_mask has shape {valid.shape}, values {ids.shape}", where)
        ids = ids.astype(np.int32)
        ids[~valid] = -1
    return ids


def _shape(size: int, response: Mapping[str, Any], told: Told, where: str) -> tuple[int, int, int]:
    """The shape of base64's numbers: from what is told, or from the response's own number of tokens."""
    top_k, layers = told.top_k, None if told.layers is None else len(told.layers)
    if isinstance(response.get("prompt_tokens"), int) and isinstance(response.get("completion_tokens"), int):
        # The last generated token has no routing; a prefix that was in the cache may be left out.
        total = response["prompt_tokens"] + response["completion_tokens"]
        for tokens in (total - 1, total, total - 1 - int(response.get("cached_tokens") or 0)):
            if tokens > 0 and size % tokens == 0:
                if top_k and size // tokens % top_k == 0:
                    return tokens, size // tokens // top_k, top_k
                if layers and size // tokens % layers == 0:
                    return tokens, layers, size // tokens // layers
    if not top_k or not layers or size % (top_k * layers):
        told_so = f", and {layers} layers of top-{top_k} do not divide them" if top_k and layers else ""
        fix = "say --top-k and --layers (of the whole model, such as 0..60)"
        raise InputError(f"{size} numbers whose shape is not in the response{told_so}", where, fix)
    return size // (top_k * layers), layers, top_k
