"""The published tables that are small enough to be transcribed (``moesim/data/validate``), each row with its source.

What their columns mean (DeepEP's and TensorRT-LLM's own tests and texts): a normal-mode GB/s counts the copies per
distinct node (RDMA) or received per distinct rank (NVLink), own ones included, times 7,392 bytes (FP8) or 14,336; the
kernel is timed, with a cached handle, and in V1's tables of early 2025 the notify kernel before it. A low-latency time
is the send and receive kernel of the standard test (128 tokens, ten selections masked). TensorRT-LLM's one-sided
figures are of a balanced router.
"""

import csv
from collections.abc import Iterator
from importlib.resources import files

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
)

_LOW_LATENCY_TABLE = {"h800": "deepep-ll-h800", "h20": "deepep-ll-h20", "h100": "deepep-ll-h100-cx7"}


def published_rows() -> list[Row]:
    """Read every transcribed table."""
    return [*_normal(), *_low_latency(), *_other(), *_nvl72(), *_figures()]


def uccl_rows() -> list[Row]:
    """Two rows of UCCL's README on AWS (CPU proxies): their times are another transport's, their bytes are DeepEP's."""
    return [
        Row(
            table="uccl-p5en",
            key=key(op=line["op"], ranks=line["ranks"]),
            library="deepep-v1",
            release="",
            gpu="h100",
            source=line["source"],
            quantity=TIME,
            published=float(line["us"]),
            op=line["op"],
            ranks=int(line["ranks"]),
            nodes=int(line["nodes"]),
            tokens=int(line["tokens"]),
            dtype=line["dtype"],
            bandwidth_GBps=float(line["GBps"]),
            rounding=rounding(line["us"], line["GBps"]),
        )
        for line in _read("uccl_normal.csv")
    ]


def _read(name: str) -> Iterator[dict[str, str]]:
    with (files("moesim") / "data" / "validate" / name).open(encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _normal() -> Iterator[Row]:
    tables = {
        ("deepep-v1", "2025-04-22"): "deepep-v1-h800",
        ("deepep-v1", "2025-02-25"): "deepep-v1-h800-first",
        ("deepep-v2", "2026-04-30"): "deepep-v2",
    }
    for line in _read("deepep_normal.csv"):
        ranks, second = int(line["ranks"]), line["library"] == "deepep-v2"
        yield Row(
            table=tables[line["library"], line["release"]],
            key=key(
                op=line["op"], ranks=ranks, gpu=line["gpu"] if second else None, sms=line["sms"] if second else None
            ),
            library=line["library"],
            release=line["release"],
            gpu=line["gpu"],
            source=line["source"],
            quantity=RDMA if line["link"] == "rdma" else NVL,
            published=float(line["GBps"]),
            op=line["op"],
            ranks=ranks,
            nodes=int(line["nodes"]),
            tokens=int(line["tokens"]),
            dtype=line["dtype"],
            sms=int(line["sms"]),
            # V1's test timed the call with events until July 2025 (``moesim.logs.deepep_normal``).
            measure=EVENTS if int(line["nodes"]) > 1 and not second else "kernel",
        )
    for line in _read("pplx_prefill.csv"):
        yield Row(
            table="deepep-v1-h100-cx7",
            key=key(op=line["op"], ranks=line["ranks"]),
            library=line["library"],
            release=line["release"],
            gpu=line["gpu"],
            source=line["source"],
            quantity=TIME,
            published=float(line["us"]),
            op=line["op"],
            ranks=int(line["ranks"]),
            nodes=int(line["nodes"]),
            tokens=int(line["tokens"]),
            dtype=line["dtype"],
            sms=int(line["sms"]),
        )


def _low_latency() -> Iterator[Row]:
    for line in _read("deepep_low_latency.csv"):
        ranks, h800 = int(line["ranks"]), line["gpu"] == "h800"
        yield Row(
            table=_LOW_LATENCY_TABLE[line["gpu"]],
            key=key(op=line["op"], ranks=ranks, release=line["release"] if h800 else None),
            library=line["library"],
            release=line["release"],
            gpu=line["gpu"],
            source=line["source"],
            quantity=TIME,
            published=float(line["us"]),
            op=line["op"],
            ranks=ranks,
            nodes=-(-ranks // 8),
            tokens=int(line["tokens"]),
            dtype="fp8" if line["op"] == "dispatch" else "bf16",
            experts=experts_tested(int(line["experts"]), ranks),
            bandwidth_GBps=float(line["GBps"]) if line["GBps"] else None,
            rounding=rounding(line["us"], line["GBps"]) if line["GBps"] else 0.0,
        )


def _other() -> Iterator[Row]:
    """Hybrid-EP's README: 8 local experts per rank; DeepEP beside it; H20 without NVLink, everything over RDMA."""
    for line in _read("deepep_other.csv"):
        ranks, link, library = int(line["ranks"]), line["link"], line["library"]
        if library == "hybrid-ep":
            table = "hybrid-ep-ib" if link == "ib" else f"hybrid-ep-nvlink-{line['measure']}"
        else:
            table = "deepep-pcie-h20" if link == "rdma" else "deepep-v1-blackwell"
        nodes = {"ib": ranks // 8, "rdma": ranks}.get(link, 1)
        yield Row(
            table=table,
            key=key(
                gpu=line["gpu"] if link in ("nvlink", "mnnvl") else None,
                op=line["op"],
                dtype=line["dtype"] if line["op"] == "dispatch" else None,
                ranks=ranks,
                sms=line["sms"],
                measure=line["measure"] if link == "ib" else None,
            ),
            library=library,
            release="94a9f8f",
            gpu=line["gpu"],
            source=line["source"],
            quantity=RDMA if link in ("ib", "rdma") else NVL,
            published=float(line["GBps"]),
            op=line["op"],
            ranks=ranks,
            nodes=nodes,
            tokens=4096,
            dtype=line["dtype"],
            sms=int(line["sms"]),
            measure=line["measure"],
            experts=256 if link == "rdma" else 8 * ranks,
        )


def _nvl72() -> Iterator[Row]:
    for line in _read("nvl72_one_sided.csv"):
        plain = line["dtype"] == "bf16"
        yield Row(
            table=f"nvl72-one-sided-{line['op']}",
            key=key(ranks=line["ranks"], tokens=line["tokens"], dtype=None if plain else line["dtype"]),
            library="trtllm-one-sided",
            release="2026",
            gpu="gb200",
            source=line["source"],
            quantity=TIME,
            published=float(line["us"]),
            op=line["op"],
            ranks=int(line["ranks"]),
            tokens=int(line["tokens"]),
            dtype=line["dtype"],
            bandwidth_GBps=float(line["GBps"]),
            rounding=rounding(line["us"], line["GBps"]),
        )


def _figures() -> Iterator[Row]:
    """Figures that are not transfer times: KV-cache sizes, DeepSeek's bound on TPOT, balance of trained models."""
    quantity = {"kv_cache_per_token": KV_CACHE, "tpot_bound": TPOT}
    for line in _read("arithmetic.csv"):
        yield Row(
            table="arithmetic",
            key=key(quantity=line["quantity"], case=line["case"]),
            library="arithmetic",
            release="2025",
            gpu="",
            source=line["source"],
            quantity=quantity[line["quantity"]],
            published=float(line["value"]),
        )
    for line in _read("balance.csv"):
        yield Row(
            table="balance",
            key=f"case={line['case']}",
            library="balance",
            release="2024",
            gpu="",
            source=line["source"],
            quantity=VIOLATION,
            published=float(line["value"]),
        )
