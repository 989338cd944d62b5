"""How the kernels of the flow engine are compiled.

numba counts references to each array that a function takes, at every call; for a tuple of thirty arrays that costs more
than the call. Kernels are therefore compiled without: they may change arrays but not create any.
"""

from typing import Any

from moesim.compiling import njit

_OPTIONS: dict[str, Any] = {"cache": True, "_nrt": False}
_IN_PLACE: dict[str, Any] = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

kernel: Any = njit(**_OPTIONS)
"""Decorator of a kernel."""

inlined: Any = njit(**_OPTIONS, **_IN_PLACE)
"""Decorator of a part of a kernel, which Python cannot call: it is compiled in place.

A call would pass all arrays of a state, which takes longer than most of these functions do, and the entry from Python
longer to compile.
"""
