"""Two folders of results, of two versions of moesim, number by number: what is equal to the bit, and what is not.

    python -m benchmarks.same_results BEFORE AFTER [--within 1e-12]

Every run and sweep found below BEFORE is compared with the folder of the same name below AFTER: summary, tables, flows,
traffic matrices and the points of sweeps. Columns and numbers that one side lacks are named. Exit code 1 where a common
number differs by more than ``--within`` of its column's largest.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

# What one folder of results says: (file, column or number) -> values.
Facts = dict[tuple[str, str], Any]


def facts_of(folder: Path) -> Facts:
    """Read every number and word of a run or sweep folder."""
    found: Facts = {}
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path)
        found |= {(path.name, name): table[name].to_pylist() for name in table.column_names}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as archive:
            found |= {(path.name, name): archive[name].ravel().tolist() for name in archive.files}
    if (summary := folder / "summary.json").is_file():
        found |= {(summary.name, key): [value] for key, value in json.loads(summary.read_text())["summary"].items()}
    return found


def difference(before: list[Any], after: list[Any]) -> float:
    """Largest difference over the largest value; 0 where all are equal to the bit, infinite where no number is."""
    if before == after:
        return 0.0
    numeric = all(isinstance(value, int | float | None) for value in (*before, *after))
    if len(before) != len(after) or not numeric or [v is None for v in before] != [v is None for v in after]:
        return np.inf
    a, b = (np.array([value for value in side if value is not None], float) for side in (before, after))
    if np.array_equal(a, b, equal_nan=True):
        return 0.0
    return float(np.nanmax(np.abs(a - b)) / np.nanmax(np.abs(a))) if np.nanmax(np.abs(a)) else np.inf


def folders(root: Path) -> Iterator[Path]:
    """Folders below ``root`` that hold tables."""
    yield from sorted({path.parent.relative_to(root) for path in root.rglob("*.parquet")})


def main() -> int:
    """Compare, print, and say whether all that both have agrees."""
    parser = argparse.ArgumentParser(description="Compare the results of two versions of moesim.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--within", type=float, default=1e-12)
    arguments = parser.parse_args()
    beyond, new, gone = 0, set[str](), set[str]()
    for folder in folders(arguments.before):
        before, after = facts_of(arguments.before / folder), facts_of(arguments.after / folder)
        off = {key: difference(before[key], after[key]) for key in before if key in after}
        equal, near = sum(not value for value in off.values()), [key for key, value in off.items() if value]
        beyond += sum(value > arguments.within for value in off.values())
        print(f"{folder}: {equal} of {len(off)} columns and numbers equal to the bit")
        if near:
            print("  differ:", ", ".join(f"{file} {name} ({off[file, name]:.1e})" for file, name in near))
        new |= {" ".join(key) for key in after if key not in before}
        gone |= {" ".join(key) for key in before if key not in after}
    for title, names in (("new", new), ("gone", gone)):
        if names:
            print(f"{title}: {', '.join(sorted(names))}")
    print(f"{beyond} differ by more than {arguments.within:g}")
    return int(beyond > 0)


if __name__ == "__main__":
    sys.exit(main())
