"""The table of pplx-kernels' ``tests/bench_all_to_all.py``: rank 0, mean over 20 runs of 10 calls, event time.

The types of token are not printed: bytes per selection tell them. The columns Torch and NVSHMEM are a padded
all-to-all, not what NCCL's tests measure: no rows.

Source: tests/bench_all_to_all.py of perplexityai/pplx-kernels.
"""

import re

from moesim.logs.given_facts import Facts
from moesim.logs.measured_row import TIME, MeasuredRow

FORM = "pplx-kernels"

_RANKS = re.compile(r"\bEP=([0-9]+) DP=[0-9]+")
_N = r"([0-9]+(?:\.[0-9]+)?)"
_US = rf"\s+{_N}[\u03bc\u00b5u]s\s*\u00b1\s*[0-9.]+[\u03bc\u00b5u]s\s+{_N}GB/s\s+([0-9]+)"
_LINE = re.compile(rf"(?<!\S)([0-9]+)\s+([0-9]+)\s+([0-9]+)\s+([0-9]+){_US}{_US}")
_DEFINITION = (
    "pplx-kernels tests/bench_all_to_all.py, mean over 20 runs of 10 calls on rank 0, event time, send and receive"
)


def read(text: str, facts: Facts) -> list[MeasuredRow] | None:
    """Read the table; None if it is not there.

    Raises:
        InputError: a fact is missing that the table does not hold.
    """
    ranks: int | None = None
    rows: list[MeasuredRow] = []
    for found in re.finditer(rf"{_RANKS.pattern}|{_LINE.pattern}", text):
        if found[1]:
            ranks = int(found[1])
            continue
        experts, top_k, tokens, hidden = (int(text) for text in found.groups()[1:5])
        for op, first in (("dispatch", 6), ("combine", 9)):
            us, bandwidth, size = float(found[first]), float(found[first + 1]), int(found[first + 2])
            if abs(size / us / 1e3 / bandwidth - 1) > 0.05:
                facts.note(f"{op} of {tokens} tokens: {size} bytes in {us:g} us are not {bandwidth:g} GB/s as printed")
            rows.append(
                facts.row(
                    **facts.place(ranks=ranks),
                    library="pplx",
                    tokens=tokens,
                    hidden=hidden,
                    top_k=top_k,
                    experts=experts,
                    dtype=_dtype(size / (tokens * top_k), hidden, facts),
                    op=op,
                    quantity=TIME,
                    value=us,
                    definition=_DEFINITION,
                )
            )
    return rows or None


def _dtype(token_bytes: float, hidden: int, facts: Facts) -> str | None:
    """Of a byte per value and a scale of 4 bytes per 128 values, or of two bytes."""
    for name, size in (("fp8", hidden + hidden / 32), ("bf16", 2 * hidden)):
        if abs(token_bytes / size - 1) < 0.01:
            return name
    facts.note(f"{token_bytes:g} bytes a selection are neither FP8 nor BF16 of {hidden}")
    return None
