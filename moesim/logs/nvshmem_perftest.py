"""NVSHMEM's perftest: tables of the all-to-all and of one-sided bandwidth, and its ``&&&& PERF`` lines.

Sizes of the all-to-all are bytes of a PE, own part included; GB are 10^9 bytes. How many PEs there were is not printed,
only the ratio of busbw to algbw, (n - 1) / n, tells.

Source: perftest/common/utils.cu of NVIDIA/nvshmem.
"""

import re

from moesim.logs.given_facts import Facts
from moesim.logs.measured_row import TIME, MeasuredRow

FORM = "NVSHMEM perftest"

_SAID = re.compile(
    r"^# *(?P<job>[a-z]\w+)\s*$"
    r"|^size\(B\) +(?P<header>\S.*)"
    r"|&&&& PERF (?P<perf>\w+?)___\S+?___size__(?P<size>[0-9]+)___(?P<what>\w+) (?P<value>[0-9.]+) [+-]?(?P<unit>\S+)"
    r"|^(?P<row>[0-9]+ +\S.*)",
    re.MULTILINE,
)
# What machine-readable lines call the columns.
_MACHINE = {("latency", "us"): "latency(us)", ("BW", "GB/sec"): "BW (GB/sec)"}
_ALLTOALL = "NVSHMEM perftest {job}; size = bytes per PE, busbw = size / time x (n-1)/n"
_LINK = "NVSHMEM perftest {job}, one direction"


def read(text: str, facts: Facts) -> list[MeasuredRow] | None:
    """Read the tables and lines; None if there are none.

    Raises:
        InputError: a fact is missing that the output does not hold.
    """
    job, header = "", ""
    seen: dict[str, None] = {}
    rows: list[MeasuredRow] = []
    for found in _SAID.finditer(text):
        said = {name: value for name, value in found.groupdict().items() if value is not None}
        if "job" in said:
            job, header = said["job"], ""
        elif "header" in said:
            header = said["header"]
        elif "perf" in said:
            name = _MACHINE.get((said["what"], said["unit"]), said["what"])
            made = _rows(said["perf"], int(said["size"]), {name: float(said["value"])}, facts)
            rows += made
            seen |= {said["perf"]: None} if not made else {}
        elif header:
            size, *cells = said["row"].split()
            names = re.findall(r"\S+(?: \([^)]*\))?", header)
            numbers = {
                name: float(cell)
                for name, cell in zip(names, cells, strict=False)
                if "(" in name and re.fullmatch(r"[0-9.]+(?:e[+-][0-9]+)?", cell)
            }
            made = _rows(job, int(size), numbers, facts)
            rows += made
            seen |= {job: None} if not made else {}
    if seen:
        facts.note(f"neither an all-to-all nor a bandwidth, left out: {', '.join(seen)}")
    return rows or ([] if seen else None)


def _rows(job: str, size: int, numbers: dict[str, float], facts: Facts) -> list[MeasuredRow]:
    if "alltoall" in job and "latency(us)" in numbers:
        place = facts.place()
        ranks = place["ranks"]
        algorithm, bus = numbers.get("algbw(GB/s)", 0.0), numbers.get("busbw(GB/s)")
        if bus and algorithm > 1 and abs(bus / algorithm - (ranks - 1) / ranks) > 1e-3:
            facts.note(f"busbw / algbw of {size} bytes is {bus / algorithm:.4f}: not that of {ranks} PEs")
        values = {TIME: numbers["latency(us)"]} | ({"busbw_GBps": bus} if bus else {})
        return [
            facts.row(
                **place, library="nvshmem", tokens=size, op="alltoall", quantity=quantity, value=value,
                definition=_ALLTOALL.format(job=job),
            )
            for quantity, value in values.items()
        ]  # fmt: skip
    if "BW (GB/sec)" in numbers:
        return [
            facts.row(
                **facts.place(ranks=2), library="nvshmem", tokens=size, op=job.removesuffix("_bw"),
                quantity="link_GBps", value=numbers["BW (GB/sec)"], definition=_LINK.format(job=job),
            )
        ]  # fmt: skip
    return []
