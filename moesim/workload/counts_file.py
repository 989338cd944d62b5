"""Expert counts from a CSV file with the header ``layer,expert,count``: one line per layer and expert.

The order of lines and of columns is free; a pair that is absent counts 0. Every mistake is named by its line.
"""

import csv
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError

COLUMNS = ("layer", "expert", "count")
MAX_LINES = 2_000_000
MAX_EXPERTS = 65_536
MAX_LAYERS = 10_000


def read_counts(path: str | Path, n_experts: int | None = None) -> dict[int, NDArray[np.float64]]:
    """Return layer -> counts [E]; without ``n_experts``, E is one more than the highest expert in the file.

    Raises InputError, as file:line, for a missing column, a value that is not a number in range, a pair given
    twice, or an empty file.
    """
    entries: dict[tuple[int, int], float] = {}
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            header = [name.strip() for name in next(rows, [])]
            if sorted(header) != sorted(COLUMNS):
                raise InputError(f"the header is {header}", f"{path}:1", f"it has to be {','.join(COLUMNS)}")
            place = [header.index(name) for name in COLUMNS]
            for row in itertools.islice(rows, MAX_LINES + 1):
                where = f"{path}:{rows.line_num}"
                if not row:
                    continue
                if len(row) != len(COLUMNS):
                    raise InputError(f"{len(row)} values, not {len(COLUMNS)}", where)
                if len(entries) == MAX_LINES:
                    raise InputError(f"more than {MAX_LINES} lines", where)
                layer = _whole(row[place[0]], "layer", MAX_LAYERS, where)
                expert = _whole(row[place[1]], "expert", n_experts or MAX_EXPERTS, where)
                if (layer, expert) in entries:
                    raise InputError(f"layer {layer}, expert {expert} for the second time", where)
                entries[layer, expert] = _count(row[place[2]], where)
    except FileNotFoundError:
        raise InputError("no such file", str(path)) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", str(path), "a UTF-8 CSV file is needed") from None
    if not entries:
        raise InputError("no counts", str(path), "at least one line after the header is needed")
    width = n_experts or 1 + max(expert for _, expert in entries)
    counts = {layer: np.zeros(width) for layer in sorted({layer for layer, _ in entries})}
    for (layer, expert), count in entries.items():
        counts[layer][expert] = count
    return counts


def _whole(text: str, column: str, limit: int, where: str) -> int:
    if not text.strip().isdecimal() or len(text.strip()) > 9 or int(text) >= limit:
        raise InputError(f"{column} is {text!r}", where, f"a whole number from 0 to {limit - 1} is needed")
    return int(text)


def _count(text: str, where: str) -> float:
    try:
        count = float(text)
    except ValueError:
        count = np.nan
    if not 0 <= count < np.inf:
        raise InputError(f"count is {text!r}", where, "a number, 0 or more, is needed")
    return count
