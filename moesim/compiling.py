"""Compiled kernels: whether this machine has them yet, and a word on stderr where it has not.

Compiled code is kept beside the source (or in ``NUMBA_CACHE_DIR``), so that a machine compiles once. numba's cache
looks at the file of a kernel alone: after an edit of a kernel delete the ``.nbi`` files in ``__pycache__``.
"""

import functools
import sys
from pathlib import Path
from typing import Any


def is_compiled(entry: Any) -> bool:
    """Whether the jitted ``entry`` is compiled or lies in the cache; also where compilation is switched off."""
    if getattr(entry, "signatures", True):
        return True
    name = f"{entry.py_func.__module__.rpartition('.')[2]}.{entry.__name__}-*.nbc"
    return any(Path(entry.stats.cache_path).glob(name))


@functools.cache
def announce(entry: Any, what: str, seconds: int) -> None:
    """Say once that the first call of the jitted ``entry`` will compile it, if it will."""
    if not is_compiled(entry):
        print(f"compiling {what}, once per machine: about {seconds} s", file=sys.stderr, flush=True)
