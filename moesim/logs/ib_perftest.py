"""linux-rdma's perftest, ``ib_write_bw`` and its siblings: what a NIC reaches, no phase of a layer.

The average is taken, in decimal GB/s of one direction. ``[MB/sec]``, until August 2024, is MiB too. A bidirectional
test adds both directions.

Source: src/perftest_parameters.c of linux-rdma/perftest.
"""

import re
from statistics import fmean

from moesim.logs.given_facts import Facts
from moesim.logs.measured_row import MeasuredRow

FORM = "perftest ib_write_bw"

_SAID = re.compile(
    r"(?P<verb>RDMA_Write|RDMA_Read|Send|Atomic\w*)(?P<both> Bidirectional)? BW Test"
    r"|(?P<cuda>CUDA devices? in system|initializing CUDA)"
    r"|\bDevice\s*: (?P<device>\S+)"
    r"|Number of qps\s*: (?P<qps>[0-9]+)"
    r"|#bytes +(?P<lanes>#sl +)?#iterations +BW peak\[[^\]]+\] +BW average\[(?P<unit>[GM]i?[bB])/sec\]"
    r"|(?<!\S)(?P<row>[0-9]+[ \t]+(?:[0-9]+[ \t]+){1,2}[0-9.]+[ \t]+[0-9.]+[ \t]+[0-9.]+)"
)
# Verb, both directions, device, queue pairs, GPU memory, bytes of a message.
_Table = tuple[str, bool, str | None, str | None, bool, int]
_GB = {"MiB": 2**20 / 1e9, "MB": 2**20 / 1e9, "Gb": 1 / 8}


def read(text: str, facts: Facts) -> list[MeasuredRow] | None:
    """Read the tables; None if there are none."""
    test: dict[str, str] = {}
    tables: dict[_Table, list[float]] = {}
    for found in _SAID.finditer(text):
        said = {name: value for name, value in found.groupdict().items() if value is not None}
        if "row" not in said:
            # GPU memory is announced before the test's name is.
            if "rows" in test and ("verb" in said or "cuda" in said):
                test = {}
            test |= said
        elif test.get("unit") in _GB:
            test["rows"] = "read"
            numbers = [float(cell) for cell in said["row"].split()]
            size, average, messages = numbers[0], numbers[-2], numbers[-1]
            rate = average * _GB[test["unit"]]
            if messages and abs(size * messages / 1e3 / rate - 1) > 0.01:
                facts.note(f"{size:.0f} bytes: {messages:g} million messages a second are not {average:g} as printed")
            both = "both" in test
            key = test.get("verb", "RDMA_Write"), both, test.get("device"), test.get("qps"), "cuda" in test, int(size)
            tables.setdefault(key, []).append(rate / 2 if both else rate)
    return [_row(key, rates, facts) for key, rates in tables.items()] or None


def _row(table: _Table, rates: list[float], facts: Facts) -> MeasuredRow:
    verb, both, device, qps, cuda, size = table
    name = {"RDMA_Write": "ib_write_bw", "RDMA_Read": "ib_read_bw", "Send": "ib_send_bw"}.get(verb, "perftest")
    if len(rates) > 1:
        facts.note(f"{len(rates)} lines of {size} bytes, as client and server print them: their mean is taken")
    return facts.row(
        library="perftest",
        nic=device,
        nics_per_node=1,
        nodes=2,
        ranks=2,
        tokens=size,
        op=verb.lower(),
        quantity="link_GBps",
        value=fmean(rates),
        definition=f"{name}, BW average, {'half of both directions' if both else 'one direction'}, "
        f"{qps or 'unknown'} QPs, {'GPU' if cuda else 'host'} memory",
    )
