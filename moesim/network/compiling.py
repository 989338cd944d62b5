"""How the kernels of the flow engine are compiled, and a word on stderr when that takes a while.

numba counts references to each array that a function takes, at every call; for a tuple of thirty arrays that costs more
than the call. Kernels are therefore compiled without: they may change arrays but not create any.

Compiled code is kept beside the source (or in ``NUMBA_CACHE_DIR``), so that a machine compiles once. numba's cache
looks at the file of a kernel alone: after an edit of a kernel delete the ``.nbi`` files in ``__pycache__``.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

from numba import njit

_OPTIONS: dict[str, Any] = {"cache": True, "_nrt": False}
_IN_PLACE: dict[str, Any] = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

kernel: Any = njit(**_OPTIONS)
"""Decorator of a kernel."""

inlined: Any = njit(**_OPTIONS, **_IN_PLACE)
"""Decorator of a part of a kernel, which Python cannot call: it is compiled in place.

A call would pass all arrays of a state, which takes longer than most of these functions do, and the entry from Python
longer to compile.
"""


@functools.cache
def announce_compiling(entry: Any) -> None:
    """Say once on stderr that the first call of the jitted ``entry`` will compile it, unless it is in the cache."""
    if getattr(entry, "signatures", True):  # compiled or loaded already, or compilation is switched off
        return
    folder = Path(entry.stats.cache_path)
    if not any(folder.glob(f"{entry.py_func.__module__.rpartition('.')[2]}.{entry.__name__}-*.nbc")):
        print("compiling the flow engine, once per machine: about 15 s", file=sys.stderr, flush=True)
