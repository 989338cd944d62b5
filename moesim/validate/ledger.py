"""The ledger: of every published row, whether its value may be fitted, fixed by rule before anything is fitted.

A row is ``fit`` (constants may be adjusted to it) or ``held-out``, and suspect or not. Roles follow from axis values
alone, never from how well a row is met: in each table a few axis values are chosen that span both regimes (messages
that the set-up time governs and messages that the bytes govern), and at least one value of ranks, nodes or SMs is held
out wholly. At most a third of a table of more than twelve rows is fitted. A row that moves the same bytes over the
same wires as a fitted one of the same source (its *twin*) counts as fitted. Suspect rows are never fitted and count in
no median; they are simulated and shown all the same.

Rows of the clusters' own list have a third role: their split is by cluster. Each cluster is ``left-out``, all its rows
at once, and predicted by the constants that all other clusters give (``clusters_left_out``); its rule names it.

``moesim/data/validate/ledger.csv`` holds the rows without the values of the large extracts. The rules that gave it, and
give it again byte for byte, stand with its tests: ``tests/reference/ledger_rules.py``.
"""

from dataclasses import dataclass

from pydantic import TypeAdapter

from moesim.validate.published_row import Row
from moesim.validate.shipped_files import shipped_lines

FIT, HELD_OUT, LEFT_OUT = "fit", "held-out", "left-out"


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


def read_ledger() -> dict[tuple[str, str], Entry]:
    """Read the ledger that ships, by table and row."""
    return {entry.name: entry for entry in TypeAdapter(list[Entry]).validate_python(shipped_lines("ledger.csv"))}
