"""How the fused router is compiled, and a word on stderr when that takes a while.

The stages of the kernel work on arrays that the kernel made. They are compiled without the counting of references,
which would cost more at every call than some stages do; they may change arrays but not create any.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def stage(function: _Function) -> _Function:
    """Compile a stage of the fused router."""
    return cast(_Function, njit(**_OPTIONS)(function))


def summing_stage(function: _Function) -> _Function:
    """Compile a stage whose float64 sums of positive numbers may be reordered, which moves the last digit of 16."""
    return cast(_Function, njit(fastmath={"reassoc", "nsz"}, **_OPTIONS)(function))


@functools.cache
def announce_compiling(entry: Any) -> None:
    """Say once on stderr that the first call of the jitted ``entry`` will compile it, unless it is in the cache."""
    if getattr(entry, "signatures", True):  # compiled or loaded already, or compilation is switched off
        return
    folder = Path(entry.stats.cache_path)
    if not any(folder.glob(f"{entry.py_func.__module__.rpartition('.')[2]}.{entry.__name__}-*.nbc")):
        print("compiling the router, once per machine: about 20 s", file=sys.stderr, flush=True)
