"""Rows as a table: CSV with the columns of a measured row, of which any that a row can do without may be missing.

``time_us`` may stand for ``quantity`` and ``value``. Every mistake is named by file, line and column of the text.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from moesim.bounded_text import csv_rows
from moesim.errors import InputError
from moesim.logs.given_facts import NAMES, Facts, cell
from moesim.logs.measured_row import BOUNDS, COLUMNS, PHASES, QUANTITIES, TIME, MeasuredRow
from moesim.mistakes import did_you_mean

FORM = "table of rows"

_MOST_MISTAKES = 20
_KNOWN = (*COLUMNS, TIME)
_CELL = re.compile(r'(?:^|,)("(?:[^"]|"")*"|[^,]*)')


def is_table(text: str) -> bool:
    """Whether the first line is a header of which two columns at least are known."""
    header = text.lstrip().partition("\n")[0].split(",")
    return len({name.strip() for name in header} & set(_KNOWN)) > 1


def read_table(text: str, facts: Facts) -> list[MeasuredRow]:
    """Read the rows of a table.

    Raises:
        InputError: a column is unknown or missing, or a cell is not what its column holds; all mistakes at once.
    """
    lines = text.split("\n")
    header: list[str] = []
    rows: list[MeasuredRow] = []
    mistakes: list[InputError] = []
    ids: set[str] = set()
    for at, cells in csv_rows(text, facts.where):
        places = _Places(facts.where, at, [found.start(1) + 1 for found in _CELL.finditer(lines[at - 1])])
        if not header:
            header = [name.strip() for name in cells]
            _check_header(header, places)
            continue
        try:
            rows.append(_row(cells, header, ids, facts, places))
        except InputError as error:
            mistakes += [error, *error.others]
            if len(mistakes) >= _MOST_MISTAKES:
                break
    if mistakes:
        first, *others = mistakes[:_MOST_MISTAKES]
        raise InputError(first.what, first.where, first.fix, tuple(others))
    return rows


class _Places:
    """Names places of one line of the file."""

    def __init__(self, path: str, line: int, starts: Sequence[int]) -> None:
        self.path, self.line, self.starts = path, line, starts

    def at(self, index: int) -> str:
        """Return where a cell begins."""
        return f"{self.path}:{self.line}:{self.starts[index] if index < len(self.starts) else 1}"


def _check_header(header: Sequence[str], places: _Places) -> None:
    for index, name in enumerate(header):
        if name not in _KNOWN:
            raise InputError(f"unknown column {name!r}", places.at(index), did_you_mean(name, _KNOWN))
        if name in header[:index]:
            raise InputError(f"column {name!r} stands twice", places.at(index), "keep one")
    wanted = ["op"] + ([] if TIME in header else ["quantity", "value"])
    missing = [name for name in wanted if name not in header]
    if missing:
        fix = "op and time_us, or op, quantity and value are needed"
        raise InputError(f"no column {' and '.join(missing)}", places.at(0), fix)


def _row(cells: Sequence[str], header: Sequence[str], ids: set[str], facts: Facts, places: _Places) -> MeasuredRow:
    said = dict(zip(header, cells, strict=False))
    if len(cells) > len(header):
        raise InputError(f"{len(cells)} cells under {len(header)} columns", places.at(len(header)), "quote commas")
    columns: dict[str, Any] = {}
    mistakes: list[InputError] = []

    def blame(name: str, what: str, fix: str) -> None:
        mistakes.append(InputError(what, places.at(header.index(name) if name in header else 0), fix))

    for name, text in said.items():
        if text.strip():
            try:
                columns[name] = cell(name, text)
            except ValueError as error:
                blame(name, f"{name} is {text.strip()!r:.60}", str(error))
    if TIME in columns:
        columns |= {"quantity": TIME, "value": columns.pop(TIME)}
    for name in NAMES:
        if name in COLUMNS and columns.get(name) is None and facts.get(name) is not None:
            columns[name] = facts.get(name)
    # Whose cell was wrong is not asked for again.
    wrong = {name for name, text in said.items() if text.strip() and name not in columns and name != TIME}
    columns.setdefault("op", "")
    of_link = columns.get("quantity") == "link_GBps"
    if not of_link and columns["op"] not in (*PHASES, "alltoallv") and "op" not in wrong:
        blame("op", f"op is {columns['op']!r:.60}", f"{', '.join(PHASES)} are known")
    if columns.get("quantity") not in QUANTITIES and not wrong & {"quantity", "value"} and not mistakes:
        if "quantity" in columns:
            fix = did_you_mean(columns["quantity"], QUANTITIES)
            blame("quantity", f"quantity is {columns['quantity']!r:.60}", fix)
        else:
            blame(TIME if TIME in header else "quantity", "no value", "give time_us, or quantity and value")
    needed = [] if mistakes else ["value"] + ["ranks", "tokens"] * (columns["op"] in PHASES)
    for name in needed:
        if columns.get(name) is None:
            blame(name, f"no {name}", f"give it in the column {name}")
    if not mistakes and columns.get("top_k", 1) > columns.get("experts", BOUNDS["experts"][1]):
        blame("top_k", f"{columns['top_k']} experts of a token, of {columns['experts']}", "top_k is at most experts")
    if not mistakes and "value" in columns:
        try:
            cell(columns["quantity"], columns["value"])
        except ValueError as error:
            blame("value", f"value is {columns['value']:g} {columns['quantity']}", str(error))
    if not mistakes and columns["op"] in PHASES:
        _place(columns, facts, blame)
    if not mistakes and columns.get("id") in ids:
        blame("id", f"id {columns['id']!r:.60} stands twice", "name every row otherwise")
    if mistakes:
        raise InputError(mistakes[0].what, mistakes[0].where, mistakes[0].fix, tuple(mistakes[1:]))
    row = facts.named(columns)
    ids.add(row.id)
    return row


def _place(columns: dict[str, Any], facts: Facts, blame: Callable[[str, str, str], None]) -> None:
    """Fill in what follows from the GPU, the ranks and how many of them a node has."""
    gpu = columns.get("gpu") or columns.get("gpu_moesim", "").upper()
    columns |= {"gpu": gpu, "gpu_moesim": columns.get("gpu_moesim") or facts.get("gpu") or gpu}
    columns["gpu_moesim"] = columns["gpu_moesim"].lower()
    ranks = columns["ranks"]
    nodes = columns["nodes"] = columns.get("nodes") or facts.nodes(ranks)
    if not gpu:
        blame("gpu", "no gpu", "give it in the column gpu, or --gpu")
    if nodes is None:
        blame("nodes", "no nodes", "give them in the column nodes, or --gpus-per-node")
    elif ranks % nodes:
        blame("nodes", f"{ranks} ranks on {nodes} nodes", "every node has as many ranks")
