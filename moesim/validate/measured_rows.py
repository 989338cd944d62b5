"""A user's own measurements, as ``moesim.logs`` reads them, in the form that is simulated and fitted."""

import re
from dataclasses import replace
from typing import get_args

from moesim.alltoall_library import ALGORITHMS, Transport, algorithm_named
from moesim.errors import InputError
from moesim.logs import PHASES, Log, MeasuredRow
from moesim.traffic import gpu_names
from moesim.validate.benchmark_routing import MOST_TOKENS
from moesim.validate.published_row import EVENTS, NVL, RDMA, TIME, Row, key

# Algorithm -> the library whose benchmark measures it.
LIBRARIES = {name: library for name in ALGORITHMS if (library := algorithm_named(name).benchmark)}
# Libraries with another's interface, kernels and test.
_SAME = {"uccl-ep": "deepep-v1", "uccl-ep-ll": "deepep-ll"}
_BANDWIDTHS = {"rdma_GBps": RDMA, "nvl_GBps": NVL}
# Until that day DeepEP's test across nodes timed the call with events, notify kernel included (``moesim.logs``).
_KERNEL_SINCE = "2025-07-14"
# Each rank is by itself on the clock.
MOST_RANKS = 512
_MOST_OF_A_RANK = 1 << 20
_DTYPES = ("fp8", "bf16", "mxfp8", "nvfp4")


def rows_to_fit(log: Log, algorithm: str, gpu: str, where: str) -> list[Row]:
    """Take the rows of an algorithm on a GPU; of a phase that has its time and a bandwidth the time.

    Args:
        log: as read. Rows that name no library are the algorithm's.
        algorithm: one of ``LIBRARIES``.
        gpu: lower-case name.
        where: the file, which names the rows.

    Raises:
        InputError: there is none, or one is of a kind that is not simulated.
    """
    library = LIBRARIES[algorithm]
    rows = [
        row
        for row in log.rows
        if row.op in PHASES and row.gpu_moesim == gpu and _SAME.get(row.library or "", row.library) in (None, library)
    ]
    if not rows:
        found = sorted({f"{row.library or ''} {row.op} on {row.gpu or 'an unknown GPU'}".strip() for row in log.rows})
        what = f"{log.form} of {', '.join(found)}: no measurement of {algorithm} on {gpu}"
        raise InputError(what, where=where, fix="give the algorithm and the GPU that were measured")
    timed = {_setting(row) for row in rows if row.quantity == TIME}
    return [_row(row, library, where) for row in rows if row.quantity == TIME or _setting(row) not in timed]


def simulated(row: MeasuredRow) -> bool:
    """Whether moesim simulates what was measured."""
    return _SAME.get(row.library or "", row.library) in LIBRARIES.values() and row.op in PHASES


def as_row(row: MeasuredRow, where: str) -> Row:
    """Take a measurement that is ``simulated``, with its cluster, ports and transport.

    Raises:
        InputError: its setting is none that can be simulated.
    """
    library = _SAME.get(row.library or "", row.library) or ""
    return replace(_row(row, library, where), gpu=gpu_of(row))


def gpu_of(row: MeasuredRow) -> str:
    """The GPU by moesim's name: as printed where it is known, also inside a longer name, else what stands for it."""
    printed = (row.gpu or "").lower()
    known = sorted(gpu_names(), key=len, reverse=True)
    unknown = re.sub(r"[^a-z0-9.-]+", "-", (row.gpu_moesim or printed).lower()).strip("-.")[:32]
    return next((name for name in known if name in printed), unknown or "gpu")


def transport_of(row: MeasuredRow) -> str:
    """A row's transport by moesim's names: ConnectX's stand without the card's; NVLink alone is the reference.

    UCCL's proxies are its own, whatever the card.
    """
    if (row.library or "").startswith("uccl") and (row.nodes or 1) > 1:
        return "uccl"
    name = (row.transport or "").removeprefix("cx-")
    return name if name in get_args(Transport) else "ibgda"


def _measure(row: MeasuredRow) -> str:
    """What a row's time is of: as its definition says, else by the day of DeepEP's log."""
    if row.library != "deepep-v1" or (row.nodes or 1) == 1:
        return "kernel"
    early = row.date is not None and len(row.date) == len(_KERNEL_SINCE) and row.date < _KERNEL_SINCE
    return EVENTS if early or "event time" in (row.definition or "") else "kernel"


def _setting(row: MeasuredRow) -> tuple[object, ...]:
    return (
        row.cluster,
        row.op,
        row.ranks,
        row.nodes,
        row.tokens,
        row.dtype,
        row.sms,
        row.hidden,
        row.top_k,
        row.source_id,
    )


def _row(row: MeasuredRow, library: str, where: str) -> Row:
    ranks, nodes, tokens = row.ranks or 0, row.nodes or 0, row.tokens or 0
    dtype = row.dtype or ("fp8" if row.op == "dispatch" else "bf16")
    whole = row.op == "alltoall"
    reasons = (
        (not 2 <= ranks <= MOST_RANKS, f"{ranks} ranks, 2 to {MOST_RANKS:,} are simulated"),
        (dtype not in _DTYPES, f"tokens of type {dtype} cannot be simulated"),
        (whole != (library == LIBRARIES["nccl-direct"]), f"{row.op} of {library} cannot be simulated"),
        (not whole and tokens > MOST_TOKENS and tokens % MOST_TOKENS > 0,
         f"{tokens} tokens per rank; past {MOST_TOKENS} only multiples of it are simulated"),
        (not whole and tokens > _MOST_OF_A_RANK, f"{tokens} tokens per rank, at most {_MOST_OF_A_RANK:,}"),
        ((row.experts or 256) < (row.top_k or 8), f"{row.top_k or 8} experts of a token, of {row.experts or 256}"),
    )  # fmt: skip
    for holds, what in reasons:
        if holds:
            raise InputError(f"{row.id}: {what}", where=where, fix="leave the row out")
    quantity, value = row.quantity, row.value
    if quantity == "busbw_GBps":
        quantity, value = TIME, tokens * (ranks - 1) / ranks / value / 1e3
    return Row(
        table=where.replace("\\", "/").rsplit("/", 1)[-1],
        key=key(op=row.op, ranks=ranks, tokens=tokens, dtype=row.dtype, sms=row.sms),
        library=library,
        release="",
        gpu=row.gpu_moesim or "",
        source=where,
        quantity=_BANDWIDTHS.get(quantity, quantity),
        published=value,
        op=row.op,
        ranks=ranks,
        nodes=nodes,
        tokens=tokens // ranks * ranks if row.op == "alltoall" else tokens,
        dtype=dtype,
        sms=row.sms,
        measure=_measure(row),
        hidden=row.hidden or 7168,
        experts=row.experts or 256,
        top_k=row.top_k or 8,
        cluster=row.cluster or where,
        transport=transport_of(row),
        nic_peak=1e9 * (row.nic_GBps_per_gpu or 0.0),
    )
