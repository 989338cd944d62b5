"""The ledger: of every published row, whether its value may be fitted, fixed by rule before anything is fitted.

A row is ``fit`` (constants may be adjusted to it) or ``held-out``, and suspect or not. Roles follow from axis values
alone, never from how well a row is met: in each table a few axis values are chosen that span both regimes (messages
that the set-up time governs and messages that the bytes govern), and at least one value of ranks, nodes or SMs is held
out wholly. At most a third of a table of more than twelve rows is fitted. A row that moves the same bytes over the
same wires as a fitted one of the same source (its *twin*) counts as fitted. Suspect rows are never fitted and count in
no median; they are simulated and shown all the same.

Rows of the clusters' own list have a third role: their split is by cluster. Each cluster is ``left-out``, all its rows
at once, and predicted by the constants that all other clusters give (``clusters_left_out``); its rule names it.

``moesim/data/validate/ledger.csv`` holds the rows without the values of the large extracts; ``write_ledger`` makes it
again, byte for byte.
"""

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files

from moesim.validate.published_row import Row

FIT, HELD_OUT, LEFT_OUT = "fit", "held-out", "left-out"
COLUMNS = ("table", "row", "library", "release", "gpu", "source", "quantity", "role", "suspect", "rule")


@dataclass(frozen=True)
class Entry:
    """What the ledger says of one row; ``rule`` gives the reason of a fitted twin or a suspect."""

    table: str
    row: str
    library: str
    release: str
    gpu: str
    source: str
    quantity: str
    role: str
    suspect: bool
    rule: str

    @property
    def name(self) -> tuple[str, str]:
        """Table and key of the row."""
        return self.table, self.row


_NORMAL_TOKENS = {2, 16, 64, 256, 1024, 4096, 32_768}
_TRT_TOKENS = {4, 96, 512, 2048, 16_384}
_TRT_RANKS = {2, 8, 32}
_NCCL_BYTES = {2048, 32_768, 131_072, 1_048_576, 8_388_608, 268_435_456}


def _two_sided(row: Row) -> bool:
    return row.ranks in _TRT_RANKS and row.tokens in _TRT_TOKENS


_FITTED: dict[str, Callable[[Row], bool]] = {
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


def suspect(row: Row) -> str:
    """Return why a row is not to be trusted, or nothing. Each rule names the finding that it follows from."""
    if row.cluster and row.flagged:
        return f"cluster {row.cluster}: a fault, as its authors say"
    if row.flagged:
        return "8 nodes congested: 1,024 tokens or more, or notify above half of the transfer"
    if row.table == "aic-normal-dispatch" and row.nodes == 2 and row.sms == 12:
        return "2 nodes with 12 SMs: 27 % off both neighbours, notify 200 us"
    if row.table == "deepep-ll-h800" and row.ranks >= 128 and row.release > "2025-06":
        return "repeats the first release's figure"
    if row.table == "nvl72-one-sided-dispatch" and row.ranks == 64 and row.tokens <= 4:
        return "above the batches of 8 to 32 tokens"
    if row.table == "aic-two-sided-combine" and row.ranks in {16, 64} and row.tokens <= 8:
        return "above the batches of 16 tokens"
    if row.table == "deepep-v1-blackwell" and row.op == "combine" and row.ranks == 24:
        return "less than half of the 16- and 8-rank rates"
    if row.table == "deepep-v2" and row.gpu == "sm90" and row.ranks == 16:
        return "its NVLink rate is not an H800's; GPU unknown"
    if row.table == "deepep-v1-h100-cx7":
        return "prefill table does not fit its neighbours: 1,810 us for 8 ranks"
    return ""


def _twin_key(row: Row) -> tuple[object, ...]:
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


def make_ledger(rows: Iterable[Row]) -> list[Entry]:
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


def _never(_: Row) -> bool:
    return False


def write_ledger(entries: Iterable[Entry]) -> str:
    """Spell the ledger as CSV."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for entry in entries:
        out.writerow(
            (
                entry.table, entry.row, entry.library, entry.release, entry.gpu, entry.source, entry.quantity,
                entry.role, int(entry.suspect), entry.rule,
            )
        )  # fmt: skip
    return text.getvalue()


def read_ledger() -> dict[tuple[str, str], Entry]:
    """Read the ledger that ships, by table and row."""
    with (files("moesim") / "data" / "validate" / "ledger.csv").open(encoding="utf-8") as file:
        entries = [
            Entry(**{**line, "suspect": line["suspect"] == "1"})  # type: ignore[arg-type]
            for line in csv.DictReader(file)
        ]
    return {entry.name: entry for entry in entries}
