"""A measurement as a row: what ran, where, how large, which quantity, and the value in the quantity's unit.

The columns are those of a table of measured clusters; None where a fact is unknown. One row is one phase, one type of
token and one quantity: a line that prints a time and a bandwidth is two rows. Bandwidths are decimal GB/s of one
direction.
"""

from dataclasses import dataclass, fields
from typing import Final

TIME: Final = "time_us"
QUANTITIES: Final = (TIME, "rdma_GBps", "nvl_GBps", "busbw_GBps", "link_GBps")
# What a run simulates; a row of anything else tells a link's rate at most.
PHASES: Final = ("dispatch", "combine", "prepare", "alltoall")


@dataclass(frozen=True, kw_only=True)
class MeasuredRow:
    """One measured value.

    Attributes:
        id: names the row in its file.
        cluster, source_id, source, date: where it comes from.
        library, version: what was measured: ``deepep-v1``, ``deepep-ll``, ``deepep-v2``, ``uccl-ep``, ``uccl-ep-ll``,
            ``pplx``, ``nccl``, ``nvshmem``, ``perftest``.
        gpu, gpu_moesim: the GPU as printed, and moesim's name of it or of the one that stands for it.
        nic, nics_per_node, nic_GBps_per_gpu, nic_assumed: its NICs; 1 where they are assumed.
        nodes, ranks: NVLink domains and GPUs.
        tokens: per rank; of an all-to-all of equal messages the bytes that a rank sends, of a link's test those of a
            message.
        hidden, top_k, experts, top_nodes: of the layer; ``top_nodes`` is how many nodes a token may go to.
        dtype: of a token on the wire.
        sms: SMs of the kernel.
        op: ``dispatch``, ``combine``, ``alltoall`` ..., or a link's operation.
        quantity: ``time_us``; ``rdma_GBps``, ``nvl_GBps`` (DeepEP's, logical); ``busbw_GBps``; ``link_GBps``.
        value: in the unit of ``quantity``.
        definition: how the value was measured: by which clock, over what.
        transport, health: how bytes reached the wire; ``ok`` or ``poor`` as a person judged.
        note: anything else.
    """

    id: str
    cluster: str | None = None
    source_id: str | None = None
    library: str | None = None
    version: str | None = None
    gpu: str | None = None
    gpu_moesim: str | None = None
    nic: str | None = None
    nics_per_node: int | None = None
    nic_GBps_per_gpu: float | None = None
    nic_assumed: int | None = None
    nodes: int | None = None
    ranks: int | None = None
    tokens: int | None = None
    hidden: int | None = None
    top_k: int | None = None
    experts: int | None = None
    top_nodes: int | None = None
    dtype: str | None = None
    sms: int | None = None
    op: str
    quantity: str
    value: float
    definition: str | None = None
    transport: str | None = None
    health: str | None = None
    source: str | None = None
    date: str | None = None
    note: str | None = None


COLUMNS: Final = tuple(field.name for field in fields(MeasuredRow))
WHOLE: Final = frozenset(field.name for field in fields(MeasuredRow) if field.type == int | None)
REAL: Final = frozenset({"value", "nic_GBps_per_gpu"})
# What no cluster, layer or measurement comes near: outside it is a slip of the pen, or of the unit.
BOUNDS: Final = {
    "nics_per_node": (0, 1024), "nic_GBps_per_gpu": (1e-3, 1000.0), "nic_assumed": (0, 1), "gpus_per_node": (1, 1024),
    "nodes": (1, 8192), "ranks": (1, 65_536), "tokens": (1, 1 << 44), "hidden": (1, 1 << 20), "top_k": (1, 1024),
    "experts": (1, 65_536), "top_nodes": (1, 8192), "sms": (1, 1024), "value": (1e-9, 1e9), TIME: (1e-3, 1e9),
    "rdma_GBps": (1e-6, 1e5), "nvl_GBps": (1e-6, 1e5), "busbw_GBps": (1e-9, 1e6), "link_GBps": (1e-9, 1e5),
}  # fmt: skip


@dataclass(frozen=True)
class Log:
    """What a file of measurements held: its forms by name, the rows, and what was noticed while reading."""

    form: str
    rows: tuple[MeasuredRow, ...]
    notes: tuple[str, ...]
