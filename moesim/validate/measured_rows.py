"""A user's own measurements as rows: the JSON of nccl-tests, the log of a DeepEP test, or a CSV.

* nccl-tests (``-J FILE``): out-of-place times of its all-to-all; ranks and nodes from the devices that it lists.
* DeepEP's tests: the lines ``[tuning] Best dispatch (FP8): SMs 24, ... 43.50 GB/s (RDMA)``, with
  ``[config] num_tokens=...`` before them, and ``[rank 0] Dispatch bandwidth: ..., avg_t=77.07 us | Combine ...``, of
  which all ranks' are averaged. A log does not say how many nodes there were.
* CSV: columns ``op, ranks, tokens, time_us`` and, where they differ from the default, ``nodes, dtype, sms, hidden,
  experts, top_k``; ``tokens`` are bytes per rank for ``nccl-*``.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.alltoall_library import ALGORITHMS, algorithm_named
from moesim.errors import InputError
from moesim.validate.published_row import NVL, RDMA, TIME, Row, key

# Algorithm -> the library whose benchmark measures it.
LIBRARIES = {name: library for name in ALGORITHMS if (library := algorithm_named(name).benchmark)}
# Tokens per rank where a log does not say: what the library's test takes.
_TEST_TOKENS = {"deepep-ll": 128}
_MOST_BYTES = 64 * 10**6
_TUNED = re.compile(
    r"\[tuning\] Best (?P<op>dispatch|combine)(?: \((?P<dtype>FP8|BF16)\))?: SMs (?P<sms>\d+).*?"
    r"(?P<value>[\d.]+) GB/s \((?P<link>RDMA|NVL)\)"
)
_LOW_LATENCY = re.compile(
    r"\[rank (?P<rank>\d+)\].*?Dispatch bandwidth: [\d.]+ GB/s, avg_t=(?P<dispatch>[\d.]+) us \| "
    r"Combine bandwidth: [\d.]+ GB/s, avg_t=(?P<combine>[\d.]+) us"
)
_SETTING = re.compile(r"\b(num_tokens|hidden|num_experts|num_topk)=(\d+)")


@dataclass(frozen=True)
class Cluster:
    """What a file may not say: the algorithm, the GPU, how many ranks and GPUs in a node; 0 ranks: the file must."""

    algorithm: str
    gpu: str
    ranks: int = 0
    gpus_per_node: int = 8

    def nodes(self, ranks: int) -> int:
        """Number of NVLink domains of this many ranks."""
        return max(1, -(-ranks // self.gpus_per_node))


def measured_rows(path: Path, cluster: Cluster) -> list[Row]:
    """Read a file of measurements.

    Raises:
        InputError: it cannot be read, or holds nothing to be used.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"is larger than {_MOST_BYTES // 10**6} MB", where=str(path), fix="keep its results only")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise InputError("is not text", where=str(path), fix="give a JSON, a log or a CSV") from None
    read: Callable[[str, Path, Cluster], Iterator[Row]]
    plain = _json_rows if text.lstrip().startswith("{") else _log_rows
    read = _csv_rows if path.suffix == ".csv" else plain
    rows = list(read(text, path, cluster))
    if not rows:
        raise InputError("holds no measurement", where=str(path), fix="see moesim calibrate --help for the formats")
    return rows


def _row(path: Path, cluster: Cluster, ranks: int, **axes: Any) -> Row:
    """A row of the user's; ``published`` must be positive and finite."""
    nodes = axes.pop("nodes", None) or cluster.nodes(ranks)
    if ranks < 2 or ranks % nodes:
        raise InputError(f"{ranks} ranks on {nodes} nodes", where=str(path), fix="give --ranks and --gpus-per-node")
    value = axes["published"]
    if not 0 < value < 1e12:
        raise InputError(f"a measured value of {value}", where=str(path), fix="it must be positive")
    return Row(
        table=path.name,
        key=key(
            op=axes["op"], ranks=ranks, tokens=axes.get("tokens"), dtype=axes.get("dtype"), sms=axes.get("sms"),
        ),
        library=LIBRARIES[cluster.algorithm],
        release="",
        gpu=cluster.gpu,
        source=str(path),
        ranks=ranks,
        nodes=nodes,
        **axes,
    )  # fmt: skip


def _json_rows(text: str, path: Path, cluster: Cluster) -> Iterator[Row]:
    try:
        data = json.loads(text)
        devices = data.get("config", {}).get("devices", [])
        hosts = {device["hostname"] for device in devices}
        ranks = cluster.ranks or len(devices)
        for line in data["results"]:
            found = line.get("out_of_place") or line.get("in_place")
            size = int(line["size"])
            if not found or size < ranks or "time" not in found:
                continue
            yield _row(
                path,
                cluster,
                ranks,
                nodes=len(hosts) if len(devices) == ranks and hosts else None,
                quantity=TIME,
                published=float(found["time"]),
                op="alltoall",
                tokens=size // ranks * ranks,
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        what = f"is not the JSON of nccl-tests: {type(error).__name__} {error}"
        raise InputError(what, where=str(path), fix="write it with nccl-tests' option -J") from None


def _log_rows(text: str, path: Path, cluster: Cluster) -> Iterator[Row]:
    tokens = _TEST_TOKENS.get(LIBRARIES[cluster.algorithm], 4096)
    setting = {"num_tokens": tokens, "hidden": 7168, "num_experts": 256, "num_topk": 8}
    times: dict[str, list[float]] = {"dispatch": [], "combine": []}
    heard: set[str] = set()
    for line in text.splitlines():
        setting |= {name: int(value) for name, value in _SETTING.findall(line)}
        found = _LOW_LATENCY.search(line)
        if found:
            heard.add(found["rank"])
            for op in times:
                times[op].append(float(found[op]))
        found = _TUNED.search(line)
        if found:
            if not cluster.ranks:
                raise InputError("a log does not say how many ranks there were", where=str(path), fix="give --ranks")
            op = found["op"]
            yield _row(
                path,
                cluster,
                cluster.ranks,
                quantity=RDMA if found["link"] == "RDMA" else NVL,
                published=float(found["value"]),
                op=op,
                dtype=(found["dtype"] or "BF16").lower(),
                sms=int(found["sms"]),
                **_layer(setting),
            )
    for op, seconds in times.items():
        if seconds:
            yield _row(
                path,
                cluster,
                cluster.ranks or len(heard),
                quantity=TIME,
                published=sum(seconds) / len(seconds),
                op=op,
                dtype="fp8" if op == "dispatch" else "bf16",
                **_layer(setting),
            )


def _layer(setting: dict[str, int]) -> dict[str, int]:
    names = {"num_tokens": "tokens", "hidden": "hidden", "num_experts": "experts", "num_topk": "top_k"}
    return {names[name]: value for name, value in setting.items()}


def _csv_rows(text: str, path: Path, cluster: Cluster) -> Iterator[Row]:
    for number, line in enumerate(csv.DictReader(text.splitlines()), start=2):
        try:
            numbers = {
                name: int(line[name])
                for name in ("tokens", "nodes", "sms", "hidden", "experts", "top_k")
                if (line.get(name) or "").strip()
            }
            op = line["op"]
            if op not in ("dispatch", "combine", "alltoall", "prepare"):
                raise ValueError(f"op {op!r}")
            yield _row(
                path,
                cluster,
                int(line["ranks"]),
                quantity=TIME,
                published=float(line["time_us"]),
                op=op,
                dtype=line.get("dtype") or ("fp8" if op == "dispatch" else "bf16"),
                **numbers,
            )
        except InputError:
            raise
        except (KeyError, ValueError, TypeError) as error:
            what = f"not a measurement: {type(error).__name__} {error}"
            raise InputError(what, where=f"{path}:{number}", fix="columns op,ranks,tokens,time_us are needed") from None
