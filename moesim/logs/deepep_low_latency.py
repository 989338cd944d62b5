"""DeepEP's ``test_low_latency.py`` of every age, UCCL-EP's copy of it and its pplx entry.

Every rank prints a line of its own, in no order, two now and then on one line of text. The rows are the kernels of one
phase, send and receive, as a mean over the ranks. The event time of both phases together and the hook mode's times of
sending and receiving are no rows. Nothing of the layer is printed: GB/s x us, the bytes of a rank's selections, tells
the type of token and refutes a wrong number of them.

Source: tests/legacy of deepseek-ai/DeepEP, ep/bench of uccl-project/uccl.
"""

import re
from collections.abc import Iterator, Sequence
from statistics import fmean

from moesim.logs.given_facts import Facts
from moesim.logs.measured_row import TIME, MeasuredRow

FORM = "DeepEP low latency"

_N = r"([0-9]+(?:\.[0-9]+)?)"
_RANK = re.compile(
    rf"\[rank ([0-9]+)\] Dispatch bandwidth: {_N} GB/s, avg_t={_N} us \| Combine bandwidth: {_N} GB/s, avg_t={_N} us"
)
_PPLX = re.compile(rf"\[pplx\]\[rank 0\] (Dispatch|Combine) both p50: {_N} us, {_N} GB/s")
_KERNELS = "test_low_latency.py, kernel of one phase (send and receive), ten selections of a rank masked"
_EVENTS = "test_low_latency_pplx.py, median over ranks and calls, event time, send and receive"
# What the test runs with if nothing is said, and what the tests of normal mode call it with.
_DEFAULTS = (
    {"tokens": 128, "hidden": 7168, "top_k": 8, "experts": 288},
    {"tokens": 16, "hidden": 5120, "top_k": 9, "experts": 256},
)
# Selections that the test masks on each rank at most.
_MASKED = 10
_Line = tuple[float, ...]  # rank, GB/s and us of dispatch, GB/s and us of combine


def read(text: str, facts: Facts) -> list[MeasuredRow] | None:
    """Read the ranks' lines, run by run; None if there are none.

    Raises:
        InputError: a fact is missing that the log does not hold, or lines of different runs are mixed.
    """
    rows = _rank_rows(text, facts) + _pplx_rows(text, facts)
    return rows or None


def _rank_rows(text: str, facts: Facts) -> list[MeasuredRow]:
    lines = [tuple(map(float, found)) for found in _RANK.findall(text)]
    uccl = re.search(r"\buccl|All correctness tests passed", text, re.IGNORECASE)
    runs = _runs(lines)
    rows: list[MeasuredRow] = []
    for run in runs:
        counted = int(max(line[0] for line in run)) + 1
        if len(runs) == 1:
            counted = max(counted, facts.get("ranks") or 0)
        if len(run) < counted:
            facts.note(f"lines of {len(run)} of {counted} ranks")
        rows += _run_rows(run, counted, "uccl-ep-ll" if uccl else "deepep-ll", facts)
    return rows


def _runs(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Split lines into runs: as many as each rank has lines, or where a rank comes again."""
    of_rank: dict[float, list[_Line]] = {}
    for line in lines:
        of_rank.setdefault(line[0], []).append(line)
    if len({len(each) for each in of_rank.values()}) == 1:
        return [list(run) for run in zip(*of_rank.values(), strict=True)]
    runs: list[list[_Line]] = [[]]
    for line in lines:
        if line[0] in {each[0] for each in runs[-1]}:
            runs.append([])
        runs[-1].append(line)
    return [run for run in runs if run]


def _run_rows(run: Sequence[_Line], counted: int, library: str, facts: Facts) -> Iterator[MeasuredRow]:
    place = facts.place(ranks=counted)
    for op, first in (("dispatch", 1), ("combine", 3)):
        sizes = [line[first] * line[first + 1] * 1e3 for line in run]
        if max(sizes) > 1.1 * min(sizes):
            raise facts.refuse("holds lines of different sizes of message", "keep one run in a file")
        times = [line[first + 1] for line in run]
        yield facts.row(
            **place,
            **_layer(op, fmean(sizes), counted, facts),
            library=library,
            op=op,
            quantity=TIME,
            value=facts.credible(fmean(times)),
            definition=_KERNELS,
            note=f"mean of {len(run)} ranks, the slowest {max(times):g} us",
        )


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
    of_test = _DEFAULTS[0]
    for defaults in _DEFAULTS if facts.get("tokens") is None else _DEFAULTS[:1]:
        sizes = {name: facts.get(name) or value for name, value in defaults.items()}
        bytes_of = _token_bytes(op, sizes["hidden"])
        most = sizes["tokens"] * sizes["top_k"]
        fitting = [name for name, size in bytes_of.items() if 0.995 * (most - _MASKED) <= sent / size <= 1.005 * most]
        if fitting:
            of_test = defaults
            break
    if not fitting and facts.get("tokens") is None:
        raise facts.asked(*(name for name in ("tokens", "hidden", "top_k") if facts.get(name) is None))
    # The test refuses experts that its ranks do not share evenly: then its default was not what ran.
    layer = {name: facts.said(name, None, of_test[name]) for name in ("tokens", "hidden", "top_k")}
    layer["experts"] = facts.said("experts", None, None if of_test["experts"] % ranks else of_test["experts"])
    bytes_of, most = _token_bytes(op, layer["hidden"]), layer["tokens"] * layer["top_k"]
    dtype = facts.get("dtype") if facts.get("dtype") in bytes_of else next(iter(fitting or bytes_of))
    said = f"{op}: GB/s x us is {sent / 1e6:.3f} MB, {sent / bytes_of[dtype]:.0f} {dtype} selections of {most}"
    if dtype not in fitting:
        facts.note(f"{said}: they disagree")
    elif sent / bytes_of[dtype] < most - 1:
        facts.note(said)
    return layer | {"dtype": dtype}


def _token_bytes(op: str, hidden: int) -> dict[str, float]:
    """Bytes that the test counts for a selection, by type, the usual one first."""
    if op == "dispatch":
        return {"fp8": hidden + hidden / 32 + 16, "bf16": 2.0 * hidden}
    return {"bf16": 2.0 * hidden, "logfmt": 1.25 * hidden + hidden / 32}
