"""A published figure: what was measured, on what, and the value as it was printed.

Readers (``published``, ``extracts``) make these rows, the ledger says of each whether it may be fitted, the benches
simulate them. A row is named by its table and its key, the axis values that tell it from its neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

TIME = "time_us"
RDMA = "deepep_rdma_GBps"
NVL = "deepep_nvl_GBps"
VIOLATION = "max_violation"
KV_CACHE = "kv_cache_bytes_per_token"
TPOT = "tpot_ms"

BANDWIDTHS = (RDMA, NVL)

EVENTS = "events"
"""Measured over the whole call: the kernel, and the notify kernel before it."""


@dataclass(frozen=True)
class Row:
    """One published value.

    Attributes:
        table, key: name of the row; unique together.
        library, release, gpu, source: what ran, which version, where, and who published it.
        quantity: ``time_us``; ``deepep_rdma_GBps`` and ``deepep_nvl_GBps`` (logical: copies per distinct node or rank,
            own ones included, over time); or a figure that is not a transfer.
        published: the value, in the unit of ``quantity``.
        op: ``dispatch``, ``combine``, ``prepare`` or ``alltoall``.
        ranks, nodes: GPUs and NVLink domains.
        tokens: tokens per rank; of an all-to-all of equal messages the bytes that each rank sends.
        dtype: of a token's activations on the wire.
        sms: SMs of the kernel, None where the library decides.
        measure: what the time is of: ``kernel``; ``events`` around the call, so with the notify kernel of a cached
            handle; ``torch`` for a call that includes the framework's own time.
        hidden, experts, top_k: of the layer.
        bandwidth_GBps: printed beside a time, for byte accounting; None where it was not.
        rounding: half a unit of the last digits of the two, relative.
        flagged: marked suspect by the extract itself.
        cluster: the machine; empty where only the source is known.
        transport: of ``moesim.alltoall_library``: who posts to the NIC.
        nic_peak: bytes/s of a GPU's NIC; 0: that of the set's source.
    """

    table: str
    key: str
    library: str
    release: str
    gpu: str
    source: str
    quantity: str
    published: float
    op: str = ""
    ranks: int = 1
    nodes: int = 1
    tokens: int = 0
    dtype: str = "bf16"
    sms: int | None = None
    measure: str = "kernel"
    hidden: int = 7168
    experts: int = 256
    top_k: int = 8
    bandwidth_GBps: float | None = None
    rounding: float = 0.0
    flagged: bool = False
    cluster: str = ""
    transport: str = "ibgda"
    nic_peak: float = 0.0

    @property
    def name(self) -> tuple[str, str]:
        """Table and key."""
        return self.table, self.key

    @property
    def per_node(self) -> int:
        """GPUs of an NVLink domain."""
        return self.ranks // self.nodes


def row_of(line: Mapping[str, str], **own: Any) -> Row:
    """Make a row of the cells of a line whose columns have its fields' names, and of what is given besides."""
    return _ROW.validate_python({name: cell for name, cell in line.items() if cell} | own)


_ROW = TypeAdapter(Row)


def key(**axes: object) -> str:
    """Spell axis values as a row's key: ``op=dispatch ranks=16``; axes that are None are left out."""
    return " ".join(f"{name}={value}" for name, value in axes.items() if value is not None)


def experts_tested(named: int, ranks: int) -> int:
    """Experts that DeepEP's low-latency test can have run with: it refuses what the ranks do not divide.

    Where the number that a row names is such a one (its test's default is 288), the model's 256 are taken.
    """
    return named if named % ranks == 0 else 256


def rounding(*printed: str) -> float:
    """Relative uncertainty of a product of printed numbers: half a unit of the last digit of each."""
    total = 0.0
    for text in printed:
        decimals = len(text.partition(".")[2])
        total += 0.5 * 10.0**-decimals / float(text)
    return total


def phase_of(row: Row) -> str:
    """Which of the two phases' constants a row takes: combine its own, everything else dispatch's."""
    return "combine" if row.op == "combine" else "dispatch"
