"""DeepEP's ``test_low_latency.py`` of every age, UCCL-EP's copy of it and its pplx entry.

Every rank prints a line of its own, in no order, two now and then on one line of text. The rows are the kernels of one
phase, send and receive, as a mean over the ranks. The event time of both phases together and the hook mode's times of
sending and receiving are no rows. Nothing of the layer is printed: GB/s x us, the bytes of a rank's selections, tells
the type of token and refutes a wrong number of them.

Source: tests/legacy of deepseek-ai/DeepEP, ep/bench of uccl-project/uccl.
"""

import re
from statistics import fmean

from moesim.logs.given_facts import Facts
from moesim.logs.measured_row import TIME, MeasuredRow

FORM = "DeepEP low latency"

_N = r"(\d+(?:\.\d+)?)"
_RANK = re.compile(
    rf"\[rank (\d+)\] Dispatch bandwidth: {_N} GB/s, avg_t={_N} us \| Combine bandwidth: {_N} GB/s, avg_t={_N} us"
)
_PPLX = re.compile(rf"\[pplx\]\[rank 0\] (Dispatch|Combine) both p50: {_N} us, {_N} GB/s")
_KERNELS = "test_low_latency.py, kernel of one phase (send and receive), ten selections of a rank masked"
_EVENTS = "test_low_latency_pplx.py, median over ranks and calls, event time, send and receive"
# Of selections, those that can be masked or lost in rounding.
_FEWEST, _MOST = 0.95, 1.004
_TOKENS, _HIDDEN, _TOP_K, _EXPERTS = 128, 7168, 8, 288


def read(text: str, facts: Facts) -> list[MeasuredRow] | None:
    """Read the ranks' lines; None if there are none.

    Raises:
        InputError: a fact is missing that the log does not hold, or lines of different runs are mixed.
    """
    rows = _rank_rows(text, facts) + _pplx_rows(text, facts)
    return rows or None


def _rank_rows(text: str, facts: Facts) -> list[MeasuredRow]:
    lines = [(int(rank), *map(float, rest)) for rank, *rest in _RANK.findall(text)]
    if not lines:
        return []
    heard = {int(line[0]) for line in lines}
    counted = max(facts.get("ranks") or 0, max(heard) + 1)
    if len(heard) < counted:
        facts.note(f"lines of {len(heard)} of {counted} ranks")
    if len(lines) > len(heard):
        facts.note(f"{len(lines)} lines of {len(heard)} ranks: every run in the file is in the mean")
    uccl = re.search(r"\buccl|All correctness tests passed", text, re.IGNORECASE)
    place = facts.place(ranks=counted)
    phases = {"dispatch": [line[1:3] for line in lines], "combine": [line[3:5] for line in lines]}
    rows = []
    for op, printed in phases.items():
        sizes = [bandwidth * us * 1e3 for bandwidth, us in printed]
        if max(sizes) > 1.1 * min(sizes):
            raise facts.refuse("holds lines of different sizes of message", "keep one run in a file")
        times = [us for _, us in printed]
        rows.append(
            facts.row(
                **place,
                **_layer(op, fmean(sizes), place["ranks"], facts),
                library="uccl-ep-ll" if uccl else "deepep-ll",
                op=op,
                quantity=TIME,
                value=facts.credible(fmean(times)),
                definition=_KERNELS,
                note=f"mean of {len(heard)} ranks, the slowest {max(times):g} us",
            )
        )
    return rows


def _pplx_rows(text: str, facts: Facts) -> list[MeasuredRow]:
    lines = [(op.lower(), float(us), float(bandwidth)) for op, us, bandwidth in _PPLX.findall(text)]
    if not lines:
        return []
    place = facts.place()
    return [
        facts.row(
            **place,
            **_layer(op, bandwidth * us * 1e3, place["ranks"], facts),
            library="uccl-ep-ll",
            op=op,
            quantity=TIME,
            value=facts.credible(us),
            definition=_EVENTS,
        )
        for op, us, bandwidth in lines
    ]


def _layer(op: str, sent: float, ranks: int, facts: Facts) -> dict[str, object]:
    """Sizes of the layer, held against the bytes that a rank says it sent."""
    hidden, top_k = facts.said("hidden", None, _HIDDEN), facts.said("top_k", None, _TOP_K)
    # The test refuses experts that its ranks do not share evenly: then its default was not what ran.
    experts = facts.said("experts", None, None if _EXPERTS % ranks else _EXPERTS)
    bytes_of = _token_bytes(op, hidden)
    given = facts.get("tokens")
    tokens = given or _TOKENS
    fitting = [name for name, size in bytes_of.items() if _FEWEST <= sent / size / (tokens * top_k) <= _MOST]
    if not fitting and not given:
        raise facts.asked(*(name for name in ("tokens", "hidden", "top_k") if facts.get(name) is None))
    facts.said("tokens", None, _TOKENS)
    usual = next(iter(bytes_of))
    dtype = facts.get("dtype") if facts.get("dtype") in bytes_of else None
    dtype = dtype or (fitting[0] if fitting else usual)
    selections = sent / bytes_of[dtype]
    said = f"{op}: GB/s x us is {sent / 1e6:.3f} MB, {selections:.0f} {dtype} selections of {tokens} x {top_k}"
    if dtype not in fitting:
        facts.note(f"{said}: they disagree")
    elif selections < tokens * top_k - 1:
        facts.note(said)
    return {"tokens": tokens, "hidden": hidden, "top_k": top_k, "experts": experts, "dtype": dtype}


def _token_bytes(op: str, hidden: int) -> dict[str, float]:
    """Bytes that the test counts for a selection, by type, the usual one first."""
    if op == "dispatch":
        return {"fp8": hidden + hidden / 32 + 16, "bf16": 2.0 * hidden}
    return {"bf16": 2.0 * hidden, "logfmt": 1.25 * hidden + hidden / 32}
