"""Bytes of one token copy, as payload and as it crosses a wire.

An FP8 token carries one fp32 scale per 128 channels, an MXFP8 token one byte per 32, an NVFP4 token (two channels a
byte) one byte per 16. What the libraries add on the wire was read in their kernels:

- DeepEP V1 normal mode sends source metadata, top-k indices and weights with each token and aligns to 16 bytes
  (``internode.cu``, ``get_num_bytes_per_token``); its low-latency dispatch prepends a 16-byte header
  (``internode_ll.cu``).
- DeepEP V2 lays out channels, scales and metadata one behind the other, each aligned to 32 bytes; metadata is top-k
  indices and weights, and in dispatch the source token and a link per selection (``layout.cuh``, ``TokenLayout``).
- All-gather takes the ids and weights of the experts along, since every rank picks its own tokens from all.
- NCCL, Hybrid-EP and the NVLink kernels of TensorRT-LLM are taken to move the payload as it is.
"""

from moesim.alltoall_library import algorithm_named
from moesim.errors import InputError

_SCALE_BLOCK = 128
_HEADER = 16
_DTYPES = ("fp8", "bf16", "mxfp8", "nvfp4")


def payload_bytes(hidden: int, dtype: str) -> int:
    """Bytes of one token's activations with their scales.

    ``2 H`` in BF16, ``H + 4 H / 128`` in FP8, ``H + H / 32`` in MXFP8, ``H / 2 + H / 16`` in NVFP4.
    """
    channels, scales = _channels_and_scales(hidden, dtype)
    return channels + scales


def wire_bytes(algorithm: str, phase: str, hidden: int, dtype: str, top_k: int) -> int:
    """Bytes that one token copy occupies on a wire.

    Args:
        algorithm: one of ``moesim.alltoall_library.ALGORITHMS``.
        phase: ``dispatch`` or ``combine``.
        hidden: channels of a token.
        dtype: ``fp8``, ``bf16``, ``mxfp8`` or ``nvfp4``.
        top_k: experts per token; some libraries send their ids and weights along.

    Returns:
        Bytes per copy; DeepSeek-V3's FP8 dispatch is 7,472 in normal and 7,408 in low-latency mode.
    """
    payload, ids_and_weights = payload_bytes(hidden, dtype), 8 * top_k
    match algorithm_named(algorithm).layout, phase:
        case "packed", _:
            return _aligned(payload + 8 + ids_and_weights, 16)
        case "parts", _:
            source_and_links = 4 * (1 + top_k) if phase == "dispatch" else 0
            parts = (*_channels_and_scales(hidden, dtype), ids_and_weights + source_and_links)
            return sum(_aligned(part, 32) for part in parts)
        case "header", "dispatch":
            return payload + _HEADER
        case "experts", "dispatch":
            return payload + ids_and_weights
    return payload


def published_bytes(algorithm: str, phase: str, hidden: int, dtype: str, top_k: int) -> int:
    """Bytes per copy that the library's own benchmark counts in its published GB/s: the payload and what is with it.

    DeepEP V2's test counts the ids (8 bytes) and weights (4) of the experts in dispatch, the weights in combine.
    """
    match algorithm_named(algorithm).layout, phase:
        case "header", "dispatch":
            more = _HEADER
        case "parts", _:
            more = (12 if phase == "dispatch" else 4) * top_k
        case _:
            more = 0
    return payload_bytes(hidden, dtype) + more


def _channels_and_scales(hidden: int, dtype: str) -> tuple[int, int]:
    if dtype == "bf16":
        return 2 * hidden, 0
    if dtype == "fp8":
        return hidden, 4 * -(-hidden // _SCALE_BLOCK)
    if dtype == "mxfp8":
        return hidden, -(-hidden // 32)
    if dtype == "nvfp4":
        return -(-hidden // 2), -(-hidden // 16)
    raise InputError(f"unknown message dtype {dtype!r}", fix=f"use one of {', '.join(_DTYPES)}")


def _aligned(size: int, to: int) -> int:
    return -(-size // to) * to
