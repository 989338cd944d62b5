"""How the fused router is compiled.

The stages of the kernel work on arrays that the kernel made. They are compiled without the counting of references,
which would cost more at every call than some stages do; they may change arrays but not create any.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from moesim.compiling import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def stage(function: _Function) -> _Function:
    """Compile a stage of the fused router."""
    return njit(**_OPTIONS)(function)


def summing_stage(function: _Function) -> _Function:
    """Compile a stage whose float64 sums of positive numbers may be reordered, which moves the last digit of 16."""
    return njit(fastmath={"reassoc", "nsz"}, **_OPTIONS)(function)
