"""nccl-tests: the text table of every age, and the JSON of ``-J``, versions 1 to 3.

Out-of-place times of the all-to-all are taken, also of the uneven one, which is no phase of a layer. Sizes are bytes of
a rank, own part included, and busbw = algbw (n - 1) / n. Text lines give time and busbw, JSON the time alone, from
which its bandwidths are computed. Lines without data or with wrong results are dropped. Ranks are the devices listed,
nodes their hosts, which on a rack-scale NVLink domain are trays.

Source: src/common.cu and src/util.cu of NVIDIA/nccl-tests.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from moesim.logs.given_facts import Facts, rack_scale
from moesim.logs.measured_row import TIME, MeasuredRow

FORM = "nccl-tests table"
JSON_FORM = "nccl-tests JSON"

_SIZES = (
    dict.fromkeys(("int8", "uint8", "char", "uint8_t", "int8_t", "fp8_e4m3", "fp8_e5m2", "f8e4m3", "f8e5m2"), 1)
    | dict.fromkeys(("half", "bfloat16"), 2)
    | dict.fromkeys(("int32", "uint32", "int", "float"), 4)
    | dict.fromkeys(("int64", "uint64", "double"), 8)
)
_NAME = re.compile(r"\b(\w+_perf)(?:_mpi)?\b")
_SAID = re.compile(
    r"Collective test starting: *(?P<name>\S+)"
    r"|(?P<start>\bnThreads? [0-9]+ nGpus [0-9]+ )"
    r"|Rank +(?P<rank>[0-9]+) +(?:Group +(?P<group>[0-9]+) +)?Pid +[0-9]+ on +(?P<host>\S+) +"
    r"device +[0-9]+ +\[[^\]]*\] *(?P<gpu>.*)"
    r"|(?P<header># +size +count +type .*)"
    r"|nccl-library=(?P<library>[0-9]+)|NCCL version (?P<version>[0-9][\w.]*)"
    rf"|(?P<row>(?<!\S)[0-9]+[ \t]+[0-9]+[ \t]+(?:{'|'.join(_SIZES)})[ \t].*)"
    r"|(?P<command>\b\w+_perf\b.*)"
)
_GPU = re.compile(r"\b(G?[AHBLV][0-9]{2,3}\w?(?:-3e)?|H20(?:-3e)?)\b")
# Tests that print neither a reduction nor a root.
_ALIKE = ("alltoall", "alltoallv", "allgather", "sendrecv", "hypercube")
_EXCHANGES = {
    "alltoall": "alltoall_perf {} place; size = bytes per rank, busbw = size / time x (n-1)/n",
    "alltoallv": "alltoallv_perf {} place; size and bandwidths of the largest rank",
}


@dataclass
class _Run:
    """One start of a test: its name, the devices as (rank, group, host, GPU), and its lines."""

    name: str = ""
    version: str | None = None
    devices: list[tuple[int, int, str, str]] = field(default_factory=list)
    devices_of_a_process: int = 1
    cpu_time: bool = False
    lines: list["_Line"] = field(default_factory=list)


@dataclass(frozen=True)
class _Line:
    """One size; ``parts`` of equal size, 0 where it is no exchange; ``name`` of its test where the line tells it."""

    size: int
    us: float
    wrong: float
    busbw: float | None = None
    algbw: float | None = None
    in_place: bool = False
    parts: int | None = None
    name: str = ""


def read(text: str, facts: Facts) -> list[MeasuredRow] | None:
    """Read the text tables; None if there are none.

    Raises:
        InputError: a fact is missing that the table does not hold.
    """
    runs, pending, header = [_Run()], "", ""
    version: str | None = None
    for found in _SAID.finditer(text):
        said = {name: value for name, value in found.groupdict().items() if value is not None}
        run = runs[-1]
        if "start" in said:
            runs.append(_Run(pending, version))
            pending, header = "", ""
        elif "name" in said:
            pending = said["name"]
        elif "command" in said:
            # A command names the run after it; what a run prints at its end names itself.
            names = set(_NAME.findall(said["command"]))
            pending = names.pop() if len(names) == 1 and not text.endswith("concluded: ", 0, found.start()) else ""
        elif "rank" in said:
            run.devices.append((int(said["rank"]), int(said.get("group", 0)), said["host"], said["gpu"].strip()))
        elif "header" in said:
            header = said["header"]
            run.cpu_time = "cputime" in header
        elif "row" in said:
            line = _text_line(said["row"], header)
            run.lines += [line] if line else []
        else:
            version = said.get("version") or _spelt(int(said["library"]))
            run.version = version
    return _all_rows(runs, facts)


def _text_line(row: str, header: str) -> _Line | None:
    size, count, kind, *cells = row.split()
    redop = cells.pop(0) if cells and re.fullmatch(r"(?!nan|inf)[a-z]+", cells[0]) else "none"
    root = cells.pop(0) if cells and ("root" in header.split() or cells[0] == "-1") else "-1"
    if len(cells) < 3:
        return None
    try:
        us, algbw, busbw = (float(cell) for cell in cells[:3])
        wrong = 0.0 if len(cells) < 4 or cells[3] == "N/A" else float(cells[3])
    except ValueError:
        return None
    return _Line(int(size), us, wrong, busbw, algbw, parts=_parts(int(size), int(count), kind, redop, root))


def _parts(size: int, count: int, kind: str, redop: str, root: str) -> int:
    """Parts of equal size that a rank sends; 0 of a line that cannot be an exchange's, with a reduction or a root."""
    part = _SIZES.get(kind, 0) * count
    return size // part if part and redop == "none" and root.strip() == "-1" else 0


def read_json(text: str, facts: Facts) -> list[MeasuredRow] | None:
    """Read the JSON files in a text; None if there are none.

    Raises:
        InputError: a fact is missing that they do not hold, or one is damaged.
    """
    runs = [_json_run(data, facts) for data in _objects(text)]
    return (_all_rows(runs, facts) or []) if runs else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder, position = json.JSONDecoder(), 0
    while (start := re.compile(r'\{\s*"').search(text, position)) is not None:
        try:
            data, position = decoder.raw_decode(text, start.start())
        except ValueError:
            position = start.end()
            continue
        except RecursionError:
            return
        if isinstance(data, dict) and isinstance(data.get("results"), list):
            yield data


def _json_run(data: dict[str, Any], facts: Facts) -> _Run:
    try:
        config = data.get("config", {})
        arguments = [str(argument) for argument in data.get("args", [])]
        names = _NAME.findall(arguments[0]) if arguments else []
        version = int(data.get("nccl_version") or 0)
        run = _Run(names[0] if names else "", _spelt(version) if version else None)
        run.devices_of_a_process = int(config.get("nthreads", 1)) * int(config.get("ngpus", 1))
        for device in config.get("devices", []):
            gpu = str(device.get("device_info", ""))
            run.devices.append((int(device["rank"]), int(device.get("group", 0)), str(device["hostname"]), gpu))
        for result in data["results"]:
            found = result.get("out_of_place")
            body = found or result.get("in_place") or {}
            us = _real(body.get("time", body.get("cpu_time")))
            run.cpu_time = run.cpu_time or "cpu_time" in body
            if us is not None:
                name = str(result.get("experiment_name", "")).lower()
                shape = [result[key] for key in ("type", "redop", "root")] if "count" in result else None
                run.lines.append(
                    _Line(
                        size=int(result["size"]),
                        us=us,
                        wrong=_real(body.get("nwrong")) or 0.0,
                        algbw=_real(body.get("alg_bw")),
                        in_place=not found,
                        parts=_parts(int(result["size"]), int(result["count"]), *shape) if shape else None,
                        name=f"{name}_perf" if name else "",
                    )
                )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"is not the JSON of nccl-tests: {type(error).__name__} {error}"
        raise facts.refuse(what, "write it with nccl-tests' option -J") from None
    return run


def _real(value: object) -> float | None:
    """Return a number; None for null and for nan, which is written as text."""
    number = float(str(value)) if value is not None else math.nan
    return number if math.isfinite(number) else None


def _spelt(version: int) -> str:
    return f"NCCL {version // 10000}.{version // 100 % 100}.{version % 100}"


def _all_rows(runs: Sequence[_Run], facts: Facts) -> list[MeasuredRow] | None:
    """Rows of every run; None where no run has a line."""
    others: Counter[str] = Counter()
    rows = [row for run in runs for row in _run_rows(run, others, facts)]
    for name, lines in others.items():
        facts.note(f"{lines} lines of {name} left out: no all-to-all")
    return rows or ([] if any(run.lines for run in runs) else None)


def _run_rows(run: _Run, others: Counter[str], facts: Facts) -> Iterator[MeasuredRow]:
    dropped = 0
    place: dict[str, Any] = {}
    for line in run.lines:
        name = (run.name or line.name).removesuffix("_perf").replace("_", "")
        if name not in _ALIKE:
            # A name may stand in the text around a table; the table itself does not lie.
            name = name or "another test" if line.parts in (0, 1) and line.size else ""
        if name not in (*_EXCHANGES, ""):
            others[name] += 1
            continue
        if not line.size or line.wrong > 0:
            dropped += line.wrong > 0
            continue
        place = place or _place(run, line.parts if name != "alltoallv" else None, facts)
        name = name or "alltoall"
        if name not in run.name + line.name:
            facts.note("the test is not named: lines without reduction and root are taken for alltoall_perf")
        if line.algbw and abs(line.size / line.us / 1e3 / line.algbw - 1) > 0.01 + 0.006 / line.algbw:
            facts.note(f"{line.size} bytes in {line.us:g} us are not {line.algbw:g} GB/s (algbw) as printed")
        values = {TIME: line.us} | ({"busbw_GBps": line.busbw} if line.busbw else {})
        definition = _EXCHANGES[name].format("in" if line.in_place else "out of")
        for quantity, value in values.items():
            yield facts.row(
                **place,
                library="nccl",
                version=run.version,
                tokens=line.size,
                op=name,
                quantity=quantity,
                value=value,
                definition=definition + ", CPU time" * run.cpu_time,
            )
    if dropped:
        facts.note(f"{dropped} line{'s' * (dropped > 1)} with wrong results dropped")


def _place(run: _Run, parts: int | None, facts: Facts) -> dict[str, Any]:
    """On what a run ran, as far as its devices and the parts of its messages tell; of groups side by side the first."""
    numbers = sorted({rank for rank, _, _, _ in run.devices})
    ranks = len(numbers) or None
    # JSON lists one device per process.
    if numbers and (len(numbers) == 1 or numbers != list(range(len(numbers)))):
        ranks = numbers[-1] + run.devices_of_a_process
    groups = Counter(group for _, group, _, _ in run.devices)
    hosts = {host for _, group, host, _ in run.devices if group == min(groups)}
    if ranks and len(groups) > 1:
        facts.note(f"{len(groups)} groups ran side by side: ranks are those of one")
        ranks //= len(groups)
    if parts and ranks not in (None, parts):
        facts.note(f"{ranks} ranks are listed, but messages have {parts} parts: that many ranks are taken")
    ranks = parts or ranks
    models = {found[0] for _, _, _, name in run.devices if (found := _GPU.search(name))}
    gpu = models.pop() if len(models) == 1 else None
    nodes = len(hosts) or None
    if gpu and rack_scale(gpu) and len(hosts) > 1:
        nodes = None
    return facts.place(gpu, ranks, nodes)
