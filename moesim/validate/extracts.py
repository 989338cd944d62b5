"""The large published extracts, read from a reference folder where there is one; none of their values are shipped.

All are timing tables of aiconfigurator (Apache-2.0). What their columns mean was established from the values and the
collectors: an NCCL ``message_size`` counts elements, so bytes per rank are elements x size, and a message to one peer
is 1/R of that. TensorRT-LLM's ``num_tokens`` is per rank; combine always moves BF16. DeepEP normal rows are the best
of a chunk search with DeepEP's own routing (256 experts, four groups of nodes at most), the notify kernel apart;
low-latency rows are rank 0's.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from moesim.errors import InputError
from moesim.stages import PHASES
from moesim.validate.published_row import TIME, Row, experts_tested, key, rounding

FILES = (
    "aic_deepep_normal_multinode.csv",
    "aic_deepep_ll_multinode.csv",
    "aic_nccl_intranode_h100_h200.csv",
    "aic_trtllm_nvlink_alltoall_gb200.csv",
)
_ELEMENT_BYTES = {"half": 2, "int8": 1}
_SOURCE = "ai-dynamo/aiconfigurator@095f58a "


def extract_rows(folder: Path) -> list[Row]:
    """Read the extracts of a reference folder.

    Raises:
        InputError: a file is missing or not such a table.
    """
    rows: list[Row] = []
    for name, read in zip(FILES, (_normal, _low_latency, _nccl, _trtllm), strict=True):
        path = folder / "kernels" / name
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows += read(csv.DictReader(file))
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=str(path), fix="name the folder") from None
        except (KeyError, ValueError) as error:
            raise InputError(f"is not the table expected: {error!r}", where=str(path)) from None
    return rows


def _row(line: dict[str, str], **own: Any) -> Row:
    return Row(source=_SOURCE + line["src"], quantity=TIME, **own)


def _deepep(line: dict[str, str], op: str, **own: Any) -> Row:
    """A row of DeepEP's tests on H100s, dispatch in FP8 and combine in BF16."""
    nodes = int(line["node_num"])
    return _row(
        line, release="sglang 0.5.6.post2", gpu="h100", op=op, ranks=8 * nodes, nodes=nodes,
        tokens=int(line["num_token"]), dtype="fp8" if op == "dispatch" else "bf16", **own,
    )  # fmt: skip


def _normal(lines: "csv.DictReader[str]") -> Iterator[Row]:
    table = {1: "aic-normal-1-node", 2: "aic-normal", 4: "aic-normal", 8: "aic-normal-8-nodes"}
    for line, op in product(lines, PHASES):
        nodes, sms = int(line["node_num"]), int(line[f"{op}_sms"])
        across = {"nodes": nodes, "sms": sms} if nodes > 1 else {}
        yield _deepep(
            line,
            op,
            table=f"{table[nodes]}-{op}" if nodes < 8 else table[nodes],
            key=key(op=op if nodes == 8 else None, **across, tokens=line["num_token"]),
            library="deepep-v1",
            published=float(line[f"{op}_transmit_us"]),
            sms=sms,
            flagged=line["suspect"] == "1",
        )


def _low_latency(lines: "csv.DictReader[str]") -> Iterator[Row]:
    for line, op in product(lines, PHASES):
        nodes, experts, us = int(line["node_num"]), line["num_experts"], line[f"{op}_avg_t_us"]
        named = {"nodes": nodes if nodes < 8 else None, "experts": experts if nodes > 1 else None}
        yield _deepep(
            line,
            op,
            table="aic-ll" if nodes < 8 else "aic-ll-8-nodes",
            key=key(op=op, **named, tokens=line["num_token"]),
            library="deepep-ll",
            published=float(us),
            experts=experts_tested(int(experts), 8 * nodes),
            bandwidth_GBps=float(line[f"{op}_bandwidth_gbps"]),
            rounding=rounding(us, line[f"{op}_bandwidth_gbps"]),
        )


def _nccl(lines: "csv.DictReader[str]") -> Iterator[Row]:
    seen: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        if line["op_name"] != "alltoall":
            continue
        gpu, ranks, dtype = line["src"][:4], line["num_gpus"], line["nccl_dtype"]
        size = int(line["message_size"]) * _ELEMENT_BYTES[dtype]
        axes = (gpu, ranks, dtype, str(size))
        seen[axes] += 1
        yield _row(
            line,
            table=f"nccl-{gpu}",
            key=key(ranks=ranks, bytes=size, dtype=dtype, run=seen[axes]),
            library="nccl",
            release=line["src"].split("/")[3],
            gpu=gpu,
            published=float(line["latency"]) * 1e3,
            op="alltoall",
            ranks=int(ranks),
            tokens=size,
            dtype=dtype,
        )


def _trtllm(lines: "csv.DictReader[str]") -> Iterator[Row]:
    dtypes = {"bfloat16": "bf16", "fp8": "fp8", "nvfp4": "nvfp4"}
    for line in lines:
        sided = "one-sided" if line["kernel_source"] == "NVLinkOneSided" else "two-sided"
        op, dtype, ranks = line["op_name"].removeprefix("alltoall_"), dtypes[line["moe_dtype"]], line["moe_ep_size"]
        if op == "combine_low_precision":
            continue
        yield _row(
            line,
            table=f"aic-{sided}-{op}",
            key=key(ranks=ranks, dtype=dtype if sided == "two-sided" else None, tokens=line["num_tokens"]),
            library=f"trtllm-{sided}",
            release=line["src"].split("/")[3],
            gpu="gb200",
            published=float(line["latency"]) * 1e3,
            op=op,
            ranks=int(ranks),
            tokens=int(line["num_tokens"]),
            dtype=dtype if op == "dispatch" else "bf16",
        )
