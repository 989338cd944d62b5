"""Bytes of one token copy, as payload and as it crosses a wire.

An FP8 token carries one fp32 scale per 128 channels. What the libraries add on the wire was read in their
kernels: DeepEP normal mode sends source metadata, top-k indices and weights with each token and aligns to 16 bytes
(``internode.cu``, ``get_num_bytes_per_token``); its low-latency dispatch prepends a 16-byte header
(``internode_ll.cu``); NCCL moves the payload as it is.
"""

from moesim.errors import InputError

_SCALE_BLOCK = 128
_DTYPES = ("fp8", "bf16")


def payload_bytes(hidden: int, dtype: str) -> int:
    """Bytes of one token's activations: ``2 H`` in BF16, ``H + 4 H / 128`` in FP8 with its scales."""
    if dtype == "bf16":
        return 2 * hidden
    if dtype == "fp8":
        return hidden + 4 * -(-hidden // _SCALE_BLOCK)
    raise InputError(f"unknown message dtype {dtype!r}", fix=f"use one of {', '.join(_DTYPES)}")


def wire_bytes(algorithm: str, phase: str, hidden: int, dtype: str, top_k: int) -> int:
    """Bytes that one token copy occupies on a wire.

    Args:
        algorithm: ``nccl-direct``, ``deepep-normal`` or ``deepep-low-latency``.
        phase: ``dispatch`` or ``combine``.
        hidden: channels of a token.
        dtype: ``fp8`` or ``bf16``.
        top_k: experts per token; normal mode sends their ids and weights along.

    Returns:
        Bytes per copy; DeepSeek-V3's FP8 dispatch is 7,472 in normal and 7,408 in low-latency mode.
    """
    payload = payload_bytes(hidden, dtype)
    if algorithm == "deepep-normal":
        return -(-(payload + 8 + 8 * top_k) // 16) * 16
    if algorithm == "deepep-low-latency" and phase == "dispatch":
        return payload + 16
    return payload


def published_bytes(algorithm: str, phase: str, hidden: int, dtype: str) -> int:
    """Bytes per copy that the library's own benchmark counts in its published GB/s."""
    if algorithm == "deepep-low-latency" and phase == "dispatch":
        return payload_bytes(hidden, dtype) + 16
    return payload_bytes(hidden, dtype)
