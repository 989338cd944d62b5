"""How much memory this process may take: as typed, or a share of what the machine and its cgroups have."""

import os
from pathlib import Path

from moesim.errors import InputError

SHARE = 0.8
"""Of the machine's or the cgroup's total, where nothing is typed."""
HELP = "Memory that the work may take, as in 8GB; default 80 % of the machine's or the cgroup's. More is refused."


def limit_bytes(max_mem: str | None) -> float:
    """Return the limit in bytes.

    Raises:
        InputError: text that is no size, or no unit with it.
    """
    if max_mem is None:
        return SHARE * total_bytes()
    from moesim.units import parse_bytes

    try:
        return parse_bytes(max_mem)
    except InputError as error:
        raise InputError(error.what, "--max-mem", error.fix) from None


def total_bytes(root: Path = Path("/")) -> int:
    """Return what there is: of the machine, or of the tightest cgroup (version 1 or 2) around this process."""
    found = [_machine()]
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found[0]
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        # In a container the path may be the host's, of which only the top is to be seen.
        own = Path(path.lstrip("/"))
        for group in (own, *own.parents):
            try:
                found.append(int((base / group / name).read_text()))
            except (OSError, ValueError):  # no such group here, or "max"
                continue
    return min(found)


def _machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
