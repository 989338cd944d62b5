"""The published tables that are small enough to be transcribed (``moesim/data/validate``), each row with its source.

What their columns mean (DeepEP's and TensorRT-LLM's own tests and texts): a normal-mode GB/s counts the copies per
distinct node (RDMA) or received per distinct rank (NVLink), own ones included, times 7,392 bytes (FP8) or 14,336; the
kernel is timed, with a cached handle, and in V1's tables of early 2025 the notify kernel before it. A low-latency time
is the send and receive kernel of the standard test (128 tokens, ten selections masked). TensorRT-LLM's one-sided
figures are of a balanced router.
"""

from collections.abc import Iterator
from typing import Any

from moesim.validate.published_row import (
    EVENTS,
    KV_CACHE,
    NVL,
    RDMA,
    TIME,
    TPOT,
    VIOLATION,
    Row,
    experts_tested,
    key,
    rounding,
    row_of,
)
from moesim.validate.shipped_files import shipped_lines

_LOW_LATENCY_TABLE = {"h800": "deepep-ll-h800", "h20": "deepep-ll-h20", "h100": "deepep-ll-h100-cx7"}
_NORMAL_TABLE = {
    ("deepep-v1", "2025-04-22"): "deepep-v1-h800",
    ("deepep-v1", "2025-02-25"): "deepep-v1-h800-first",
    ("deepep-v2", "2026-04-30"): "deepep-v2",
}


def published_rows() -> list[Row]:
    """Read every transcribed table."""
    return [*_normal(), *_low_latency(), *_other(), *_nvl72(), *_figures()]


def uccl_rows() -> list[Row]:
    """Two rows of UCCL's README on AWS (CPU proxies): their times are another transport's, their bytes are DeepEP's."""
    return [
        _timed(line, table="uccl-p5en", key=key(op=line["op"], ranks=line["ranks"]), library="deepep-v1", release="",
               gpu="h100")
        for line in shipped_lines("uccl_normal.csv")
    ]  # fmt: skip


def _timed(line: dict[str, str], **own: Any) -> Row:
    """A row of a time, with the bandwidth that is printed beside it."""
    if bandwidth := line.get("GBps"):
        own |= {"bandwidth_GBps": bandwidth, "rounding": rounding(line["us"], bandwidth)}
    return row_of(line, quantity=TIME, published=line["us"], **own)


def _normal() -> Iterator[Row]:
    for line in shipped_lines("deepep_normal.csv"):
        second = line["library"] == "deepep-v2"
        told = {name: line[name] if second else None for name in ("gpu", "sms")}
        yield row_of(
            line,
            table=_NORMAL_TABLE[line["library"], line["release"]],
            key=key(op=line["op"], ranks=line["ranks"], **told),
            quantity=RDMA if line["link"] == "rdma" else NVL,
            published=line["GBps"],
            # V1's test timed the call with events until July 2025 (``moesim.logs.deepep_normal``).
            measure=EVENTS if line["nodes"] != "1" and not second else "kernel",
        )
    for line in shipped_lines("pplx_prefill.csv"):
        yield _timed(line, table="deepep-v1-h100-cx7", key=key(op=line["op"], ranks=line["ranks"]))


def _low_latency() -> Iterator[Row]:
    for line in shipped_lines("deepep_low_latency.csv"):
        ranks, release = int(line["ranks"]), line["release"] if line["gpu"] == "h800" else None
        yield _timed(
            line,
            table=_LOW_LATENCY_TABLE[line["gpu"]],
            key=key(op=line["op"], ranks=ranks, release=release),
            nodes=-(-ranks // 8),
            dtype="fp8" if line["op"] == "dispatch" else "bf16",
            experts=experts_tested(int(line["experts"]), ranks),
        )


def _other() -> Iterator[Row]:
    """Hybrid-EP's README: 8 local experts per rank; DeepEP beside it; H20 without NVLink, everything over RDMA."""
    for line in shipped_lines("deepep_other.csv"):
        ranks, link = int(line["ranks"]), line["link"]
        if line["library"] == "hybrid-ep":
            table = "hybrid-ep-ib" if link == "ib" else f"hybrid-ep-nvlink-{line['measure']}"
        else:
            table = "deepep-pcie-h20" if link == "rdma" else "deepep-v1-blackwell"
        yield row_of(
            line,
            table=table,
            key=key(
                gpu=line["gpu"] if link in ("nvlink", "mnnvl") else None,
                op=line["op"],
                dtype=line["dtype"] if line["op"] == "dispatch" else None,
                ranks=ranks,
                sms=line["sms"],
                measure=line["measure"] if link == "ib" else None,
            ),
            release="94a9f8f",
            quantity=RDMA if link in ("ib", "rdma") else NVL,
            published=line["GBps"],
            nodes={"ib": ranks // 8, "rdma": ranks}.get(link, 1),
            tokens=4096,
            experts=256 if link == "rdma" else 8 * ranks,
        )


def _nvl72() -> Iterator[Row]:
    for line in shipped_lines("nvl72_one_sided.csv"):
        dtype = None if line["dtype"] == "bf16" else line["dtype"]
        yield _timed(
            line,
            table=f"nvl72-one-sided-{line['op']}",
            key=key(ranks=line["ranks"], tokens=line["tokens"], dtype=dtype),
            library="trtllm-one-sided",
            release="2026",
            gpu="gb200",
        )


def _figures() -> Iterator[Row]:
    """Figures that are not transfer times: KV-cache sizes, DeepSeek's bound on TPOT, balance of trained models."""
    quantity = {"kv_cache_per_token": KV_CACHE, "tpot_bound": TPOT}
    for line in shipped_lines("arithmetic.csv"):
        what = line["quantity"]
        yield _figure(line, "arithmetic", "2025", quantity[what], key(quantity=what, case=line["case"]))
    for line in shipped_lines("balance.csv"):
        yield _figure(line, "balance", "2024", VIOLATION, key(case=line["case"]))


def _figure(line: dict[str, str], table: str, release: str, quantity: str, name: str) -> Row:
    return Row(table, name, table, release, "", line["source"], quantity, float(line["value"]))
