"""The file beside a profile: what it was measured on and how, and whether the device drifted meanwhile.

``NAME.meta.json`` is rewritten after every block of points, whole or not at all. It holds the length and SHA-256 of
the table as it was then, so that a changed table is recognised when the run goes on.
"""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moesim.errors import InputError
from moesim.files import marked, write_files
from moesim.profile.csv_columns import SCHEMA_VERSION
from moesim.profile.timing_journal import Journal

META = "side file of a profile"
DRIFT_LIMIT = 0.03
ANCHORS = ("anchor_copy", "anchor_gemm")


def meta_path(table: Path) -> Path:
    """Return the place of the file beside ``table``."""
    return table.with_suffix(".meta.json")


def read_meta(table: Path) -> dict[str, Any] | None:
    """Return the file beside ``table``, None if there is none; raises InputError if it cannot be read."""
    path = meta_path(table)
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"not the side file of a profile: {error}", str(path)) from None
    kinds = {"identity": dict, "sessions": list, "table": dict}
    if not isinstance(data, dict) or not all(isinstance(data.get(name), kind) for name, kind in kinds.items()):
        raise InputError("not the side file of a profile", str(path))
    return data


def check_continues(journal: Journal, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands beside the table, {} for a new one.

    Raises:
        InputError: the table was measured on another device, driver, version or grid, or changed since.
    """
    where = str(journal.path)
    before = read_meta(journal.path)
    if before is None:
        if journal.rows:
            raise InputError(f"the table has no {meta_path(journal.path).name} beside it", where, "give another --out")
        return {}
    for name, value in identity.items():
        if (had := before["identity"].get(name)) != value:
            raise InputError(f"the table was measured with {name} {had}, here is {value}", where, "give another --out")
    size, sha256 = before["table"].get("bytes"), before["table"].get("sha256")
    if not isinstance(size, int) or journal.digest(max(size, 0)) != (size, sha256):
        raise InputError("the table was changed since it was measured", where, "give another --out")
    return before


def anchor_times(rows: Iterable[Mapping[str, str]]) -> dict[str, dict[str, float]]:
    """Return median_us of every anchor by kernel and moment (start-1, middle-1, ...)."""
    times: dict[str, dict[str, float]] = {name: {} for name in ANCHORS}
    for row in rows:
        if row["kernel"] in times and row["median_us"] and row["cache"] == "cold":
            times[row["kernel"]][row["variant"]] = float(row["median_us"])
    return times


def drift(times: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return by how much each anchor moved, (slowest - fastest) / median, and whether that marks the table."""
    spread = {
        name: (max(own.values()) - min(own.values())) / statistics.median(own.values())
        for name, own in times.items()
        if len(own) > 1
    }
    worst = max(spread.values(), default=None)
    return {"spread": spread, "limit": DRIFT_LIMIT, "marked": worst is not None and worst > DRIFT_LIMIT}


def write_meta(journal: Journal, identity: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Write the file beside the table: identity, drift, digest of the table, and ``content``."""
    size, sha256 = journal.digest()
    times = anchor_times(journal.rows)
    data = {
        "schema_version": SCHEMA_VERSION,
        "identity": dict(identity),
        **content,
        "anchors_us": times,
        "drift": drift(times),
        "table": {"name": journal.path.name, "rows": len(journal.rows), "bytes": size, "sha256": sha256},
    }
    path = meta_path(journal.path)
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    write_files(path.parent, {path.name: marked(META, text.encode())})
