"""The rules of the ledger (``moesim.validate.ledger``), frozen before the first fit: they give ``ledger.csv`` again."""

import csv
import io
from dataclasses import astuple, fields

from moesim.validate.ledger import FIT, HELD_OUT, LEFT_OUT, Entry, suspect

_NORMAL_TOKENS = {2, 16, 64, 256, 1024, 4096, 32_768}
_TRT_TOKENS = {4, 96, 512, 2048, 16_384}
_TRT_RANKS = {2, 8, 32}
_NCCL_BYTES = {2048, 32_768, 131_072, 1_048_576, 8_388_608, 268_435_456}


def _two_sided(row):
    return row.ranks in _TRT_RANKS and row.tokens in _TRT_TOKENS


_FITTED = {
    # held out wholly: every combine, 64 ranks
    "deepep-v1-h800": lambda row: row.op == "dispatch" and row.ranks in {8, 16, 32},
    # held out wholly: every combine, 2 nodes of either GPU
    "deepep-v2": lambda row: row.op == "dispatch" and row.ranks in {8, 32},
    # 16, 64, 128 and 256 ranks held out
    "deepep-ll-h800": lambda row: row.ranks == 32 or (row.ranks == 8 and row.release > "2025-06"),
    "deepep-ll-h100-cx7": lambda row: row.ranks in {8, 32},
    "deepep-ll-h20": lambda row: row.ranks in {8, 32},
    # most token counts held out, 8 nodes a table of its own
    "aic-ll": lambda row: row.tokens in {4, 32, 256, 1024},
    # 8, 12, 16 and 24 SMs held out
    "aic-normal-dispatch": lambda row: row.sms in {4, 20} and row.tokens in _NORMAL_TOKENS,
    "aic-normal-combine": lambda row: row.sms in {4, 20} and row.tokens in _NORMAL_TOKENS,
    "aic-normal-1-node-dispatch": lambda row: row.tokens in _NORMAL_TOKENS,
    "aic-normal-1-node-combine": lambda row: row.tokens in _NORMAL_TOKENS,
    # 64 ranks held out
    "hybrid-ep-ib": lambda row: (
        (row.ranks == 16 and row.sms in {4, 16})
        or (row.ranks == 32 and row.sms == 8 and (row.op, row.dtype) != ("dispatch", "bf16"))
    ),
    # B200, 24 and 36 ranks held out
    "hybrid-ep-nvlink-kernel": lambda row: row.gpu == "gb200" and (row.ranks, row.sms) in {(8, 16), (16, 32), (32, 16)},
    "hybrid-ep-nvlink-torch": lambda row: row.gpu == "gb200" and (row.ranks, row.sms) in {(8, 16), (16, 32), (32, 16)},
    # 24 ranks held out
    "deepep-v1-blackwell": lambda row: (
        (row.gpu, row.ranks, row.sms) in {("b200", 8, 16), ("b200", 8, 40), ("gb200", 16, 24)}
    ),
    "deepep-pcie-h20": lambda row: row.op == "dispatch" and row.ranks == 8,
    # 4 GPUs held out
    "nccl-h100": lambda row: row.ranks in {2, 8} and row.tokens in _NCCL_BYTES,
    "nccl-h200": lambda row: row.ranks in {2, 8} and row.tokens in _NCCL_BYTES,
    # 4, 16 and 64 ranks held out
    "aic-one-sided-dispatch": _two_sided,
    "aic-one-sided-combine": _two_sided,
    "aic-two-sided-dispatch": _two_sided,
    "aic-two-sided-combine": _two_sided,
    "aic-two-sided-prepare": _two_sided,
    # 16 and 32 ranks held out
    "nvl72-one-sided-dispatch": lambda row: (
        row.ranks in {8, 64} and row.tokens in {8, 64, 256, 2048} and row.dtype == "bf16"
    ),
    "nvl72-one-sided-combine": lambda row: row.ranks in {8, 64} and row.tokens in {8, 64, 256, 2048},
}


def _twin_key(row):
    """What is equal for rows that move the same bytes over the same wires in one source."""
    first_h800 = row.table in ("deepep-v1-h800", "deepep-v1-h800-first")
    return (
        "deepep-v1-h800" if first_h800 else row.table,
        row.published if first_h800 else None,  # a figure carried over from one release to the next
        row.release if row.library == "deepep-ll" else None,
        row.gpu,
        row.op,
        row.ranks,
        row.nodes,
        row.tokens,
        row.sms,
        None if row.library == "nccl" else row.dtype,  # its rows are named by bytes
        row.experts,
        row.measure,
    )


def make_ledger(rows):
    """Give every row its role.

    Args:
        rows: published rows, in the order that the ledger keeps.
    """
    rows = list(rows)
    suspects = {row.name: suspect(row) for row in rows}
    chosen = {row.name for row in rows if not suspects[row.name] and _FITTED.get(row.table, _never)(row)}
    twins = {_twin_key(row) for row in rows if row.name in chosen}
    entries = []
    for row in rows:
        rule, role = suspects[row.name], LEFT_OUT if row.cluster else HELD_OUT
        if not rule and row.cluster:
            rule = f"cluster {row.cluster}"
        elif not rule and _twin_key(row) in twins:
            role = FIT
            rule = "" if row.name in chosen else "twin of a fitted row"
        entries.append(
            Entry(
                row.table, row.key, row.library, row.release, row.gpu, row.source, row.quantity, role,
                bool(suspects[row.name]), rule,
            )
        )  # fmt: skip
    return entries


def _never(_):
    return False


def write_ledger(entries):
    """Spell the ledger as CSV."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(field.name for field in fields(Entry))
    out.writerows((int(cell) if isinstance(cell, bool) else cell for cell in astuple(entry)) for entry in entries)
    return text.getvalue()
