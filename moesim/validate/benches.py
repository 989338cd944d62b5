"""What each library's own benchmark does, so that a published row can be simulated: one function per library.

A bench says which algorithm runs with which constants, how many copies travel, how large one is, and what the
publisher divides by the time. Where one rank's log is published, the mean over the ranks is its expectation, since
all ranks route alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from moesim.errors import InputError
from moesim.traffic import Copies, payload_bytes, published_bytes, wire_bytes
from moesim.validate.benchmark_routing import balanced_copies, equal_messages, one_seed_copies, random_copies
from moesim.validate.published_row import Row

_TOP_NODES = 4  # DeepEP's test: min(nodes, 4) groups
# aiconfigurator's FP8 rows move the activations alone; NVFP4 ones their scales too (7,168 and 4,032 B at H = 7,168).
_BARE_FP8 = {"aic-two-sided-dispatch"}


@dataclass(frozen=True)
class Bench:
    """One benchmark run.

    Attributes:
        algorithm: of ``moesim.alltoall_library``.
        calibration: name of the set of constants that belongs to the row's source.
        draw: gives the copies that travel; drawn when they are needed, shared between rows of one setting.
        bytes_per_copy: on the wire.
        counted_bytes: that the publisher counts per copy.
        uses_sms: the published number of SMs replaces the set's.
    """

    algorithm: str
    calibration: str
    draw: Callable[[], Copies]
    bytes_per_copy: int
    counted_bytes: int
    uses_sms: bool = False

    @property
    def copies(self) -> Copies:
        """What travels."""
        return self.draw()


def bench_of(row: Row) -> Bench:
    """Return what has to run for a row.

    Raises:
        InputError: the row is not a transfer.
    """
    if row.library not in _LIBRARIES:
        raise InputError(f"{row.table} is not a transfer", where=row.key)
    return _LIBRARIES[row.library](row)


def is_transfer(row: Row) -> bool:
    """Whether the row is of a transfer, so that a bench can run it."""
    return row.library in _LIBRARIES


def _moe_bench(
    row: Row, algorithm: str, calibration: str, draw: Callable[[], Copies], counted: int | None = None, sms: bool = True
) -> Bench:
    """A bench of a library whose copies the algorithm sizes, ``counted`` as its own test counts them if not given."""
    sizes = (algorithm, row.op, row.hidden, row.dtype, row.top_k)
    return Bench(algorithm, calibration, draw, wire_bytes(*sizes), counted or published_bytes(*sizes), sms)


def _drawn(row: Row, top_nodes: int | None = None, masked: bool = False) -> Callable[[], Copies]:
    """Random scores, as DeepEP's tests draw them."""
    sizes = (row.ranks, row.per_node, row.tokens, row.experts, row.top_k)
    return partial(random_copies, *sizes, top_nodes, masked)


def _normal(row: Row) -> Bench:
    """DeepEP V1, normal mode: ``test_internode.py`` and ``test_intranode.py``."""
    sets = {"h800": "deepep-normal-h800", "h100": "deepep-normal-h100"}
    calibration = sets.get(row.gpu, f"deepep-normal-blackwell{_cast(row)}")
    return _moe_bench(row, "deepep-normal", calibration, _drawn(row, _TOP_NODES if row.nodes > 1 else None))


def _second(row: Row) -> Bench:
    """DeepEP V2: one copy per node and from there per rank across nodes, per rank inside one; no limit of nodes."""
    algorithm, gpu = ("deepep-v2-hybrid", "h100") if row.nodes > 1 else ("deepep-v2-direct", "b200")
    return _moe_bench(row, algorithm, f"{algorithm}-{gpu}", _drawn(row))


def _pcie(row: Row) -> Bench:
    """DeepEP without NVLink: one copy per distinct rank over RDMA, the sender's own included in what is counted."""
    counted = payload_bytes(row.hidden, row.dtype)
    return _moe_bench(row, "deepep-v2-direct", "deepep-v2-direct-h20-pcie", _drawn(row), counted, sms=False)


def _low_latency(row: Row) -> Bench:
    """DeepEP, low latency: ``test_low_latency.py``, which masks ten selections of every rank."""
    algorithm, sets = "deepep-low-latency", {"h800": "deepep-low-latency-h800", "h20": "deepep-low-latency-h20"}
    name = sets.get(row.gpu, "deepep-low-latency-h100")
    if row.table == "deepep-ll-h100-cx7":
        name = "deepep-low-latency-h100-cx7"
    if row.release == "2025-02-25":
        algorithm, name = "deepep-low-latency-nic", "deepep-low-latency-nic-h800"
    return _moe_bench(row, algorithm, name, _drawn(row, masked=True), sms=False)


def _hybrid(row: Row) -> Bench:
    """Hybrid-EP: ``test_hybrid_ep.py``, eight experts per rank, one seed for all ranks."""
    name = "hybrid-ep-h100" if row.nodes > 1 else "hybrid-ep-gb200"
    calibration = name + ("" if row.measure == "kernel" else "-torch") + _cast(row)
    sizes = (row.ranks, row.per_node, row.tokens, row.experts, row.top_k)
    return _moe_bench(row, "hybrid-ep", calibration, partial(one_seed_copies, *sizes))


def _nccl(row: Row) -> Bench:
    """nccl-tests: equal messages, one R-th of the bytes to each rank; bytes travel as they are."""
    return Bench(
        algorithm="nccl-direct",
        calibration=f"nccl-direct-{row.gpu}",
        draw=partial(equal_messages, row.ranks, row.tokens // row.ranks),
        bytes_per_copy=1,
        counted_bytes=1,
    )


def _one_sided(row: Row) -> Bench:
    """TensorRT-LLM NVLinkOneSided with its balanced router."""
    source = "-aic" if row.table.startswith("aic") else ""
    return _balanced(row, "nvl-one-sided", f"nvl-one-sided-gb200{source}")


def _two_sided(row: Row) -> Bench:
    """TensorRT-LLM NVLinkTwoSided; ``prepare`` is the exchange of counts before a dispatch."""
    return _balanced(row, "nvl-two-sided", f"nvl-two-sided-gb200{_cast(row)}")


def _balanced(row: Row, algorithm: str, calibration: str) -> Bench:
    draw = partial(balanced_copies, row.ranks, row.tokens, row.top_k)
    return Bench(algorithm, calibration, draw, row_bytes(row), row_bytes(row))


def _cast(row: Row) -> str:
    """Where a kernel's work per token depends on its type, dispatch of a quantised type has a set of its own."""
    quantised = row.op == "dispatch" and row.dtype in ("fp8", "nvfp4")
    return f"-{row.dtype}" if quantised else ""


def row_bytes(row: Row) -> int:
    """Bytes of one copy of TensorRT-LLM's kernels, which move quantised activations as they come."""
    if row.table in _BARE_FP8 and row.dtype == "fp8":
        return row.hidden
    if row.dtype == "nvfp4":
        return row.hidden // 2 + row.hidden // 16
    return payload_bytes(row.hidden, row.dtype)


_LIBRARIES: dict[str, Callable[[Row], Bench]] = {
    "deepep-v1": _normal,
    "deepep-v2": _second,
    "deepep-pcie": _pcie,
    "deepep-ll": _low_latency,
    "hybrid-ep": _hybrid,
    "nccl": _nccl,
    "trtllm-one-sided": _one_sided,
    "trtllm-two-sided": _two_sided,
}
