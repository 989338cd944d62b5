"""How the fused router is compiled, and a word on stderr when that takes a while.

The stages of the kernel work on arrays that the kernel made. They are compiled without the counting of references,
which would cost more at every call than some stages do; they may change arrays but not create any.
"""

import functools
import sys
from pathlib import Path
from typing import Any

from numba import njit

stage: Any = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
"""Decorator of a stage of the fused router."""


@functools.cache
def announce_compiling(entry: Any) -> None:
    """Say once on stderr that the first call of the jitted ``entry`` will compile it, unless it is in the cache."""
    if getattr(entry, "signatures", True):  # compiled or loaded already, or compilation is switched off
        return
    folder = Path(entry.stats.cache_path)
    if not any(folder.glob(f"{entry.py_func.__module__.rpartition('.')[2]}.{entry.__name__}-*.nbc")):
        print("compiling the router, once per machine: about 20 s", file=sys.stderr, flush=True)
