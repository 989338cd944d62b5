"""Compiled kernels: numba where it pays, plain Python where it does not, and what this machine has compiled already.

Compiled code is kept beside the source (or in ``NUMBA_CACHE_DIR``), so that a machine compiles once. numba's cache
looks at the file of a kernel alone: after an edit of a kernel delete the ``.nbi`` files in ``__pycache__``.
"""

import atexit
import contextlib
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])
_chosen: list[str] = []


def njit(**options: Any) -> Callable[[_Function], _Function]:
    """Decorate a kernel: compiled at its first call or taken from the cache; itself where kernels are interpreted."""
    if interpreted():
        return lambda function: function
    if not can_keep():
        options.pop("cache", None)
    return cast(Callable[[_Function], _Function], _numba().njit(**options))


def any_place() -> bool:
    """Whether compiled kernels can be kept for the next run."""
    for folder in cache_folders("compiling.py"):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return True
    return False


@functools.cache
def can_keep() -> bool:
    """Whether compiled kernels can be kept; at the least for this process and those that it starts."""
    if any_place():
        return True
    import multiprocessing
    import tempfile

    if multiprocessing.parent_process() is None:
        why = "neither the installation nor a home can be written; NUMBA_CACHE_DIR=FOLDER keeps them"
        print(f"compiled kernels are not kept, and compiled again by the next run: {why}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        made = os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="moesim-kernels-")
        atexit.register(_forget, os.getpid(), made)
        return True
    return False


def _forget(process: int, folder: str) -> None:
    import shutil

    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _numba() -> Any:
    can_keep()
    import numba

    from moesim.cached_kernels import load_without_registries

    load_without_registries()
    return numba


@functools.cache
def interpreted() -> bool:
    """Whether the kernels of this process are plain Python; settled for good when it is first asked."""
    return bool(_chosen) or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def interpret() -> bool:
    """Leave the kernels of this process uncompiled; return whether that was still possible."""
    if not interpreted.cache_info().currsize:
        _chosen.append("interpreted")
    return interpreted()


class CompileInsteadError(Exception):
    """Interpreted kernels would give other bytes than compiled ones."""


def only_where(exact: Any) -> None:
    """Raise ``CompileInsteadError`` unless all of ``exact``, where kernels are only interpreted to save time."""
    if _chosen and not exact.all():
        raise CompileInsteadError


def n_threads() -> int:
    """Cores that this process may use; ``NUMBA_NUM_THREADS`` lowers it."""
    return 1 if interpreted() else int(_numba().config.NUMBA_NUM_THREADS)


def cache_folders(module: str) -> list[Path]:
    """Where numba may keep what it compiles of a module (``network/exact/progress.py``), the likeliest first."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(given)]
    beside = (Path(__file__).parent / module).parent / "__pycache__"
    own = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "numba"
    return [beside, own] if os.access(beside.parent, os.W_OK) else [own, beside]


def cached_files(module: str, function: str) -> list[Path]:
    """Compiled code of a kernel in the cache, whatever source it was compiled from."""
    pattern = f"{Path(module).stem}.{function}-*.nbc"
    return [path for folder in cache_folders(module) for deep in ("", "*/") for path in folder.glob(deep + pattern)]


def in_cache(module: str, function: str) -> bool:
    """Whether a kernel's compiled code lies in the cache and is newer than its source; tells without numba."""
    source = Path(__file__).parent / module
    return any(path.stat().st_mtime > source.stat().st_mtime for path in cached_files(module, function))


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
