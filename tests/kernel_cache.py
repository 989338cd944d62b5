"""A cache of compiled kernels for the tests, one per state of the kernels' sources.

numba's cache looks at a kernel's own file alone: after an edit of a kernel that kernels of other files call, those run
on with the old code, and tests pass that should fail. So the folder's name is the digest of all files that go into
compiled code.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

FOLDER = ".numba_cache"
KEPT = 2
"""States to keep: going back and forth between two branches compiles nothing."""

_COMPILES = re.compile(r"\bnjit\b|^from moesim\.[\w.]+\.(?:kernel|stage)_options import", re.MULTILINE)
_IMPORTS = re.compile(r"^from (moesim[\w.]*) import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)


def kernel_files(root: Path) -> list[Path]:
    """Modules of the package that compile functions."""
    return [path for path in sorted((root / "moesim").rglob("*.py")) if _COMPILES.search(path.read_text("utf-8"))]


def with_imported(root: Path, files: Iterable[Path]) -> list[Path]:
    """The files and all modules of the package that they import, directly or not."""
    found, left = set(), list(files)
    while left:
        path = left.pop()
        if path in found:
            continue
        found.add(path)
        for module, in_brackets, bare in _IMPORTS.findall(path.read_text("utf-8")):
            place = root.joinpath(*module.split("."))
            names = re.findall(r"\w+", in_brackets or bare)
            candidates = (place.with_suffix(".py"), place / "__init__.py", *(place / f"{name}.py" for name in names))
            left += [candidate for candidate in candidates if candidate.is_file()]
    return sorted(found)


def digest(root: Path) -> str:
    """Tell the state of everything that goes into compiled code."""
    sources = hashlib.sha256()
    for path in with_imported(root, kernel_files(root)):
        sources.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return sources.hexdigest()[:16]


def use_cache_of(root: Path) -> None:
    """Have this process and those that it starts keep compiled kernels in the folder of their sources' state.

    To be called before numba is imported, which reads the variable once.
    """
    cache = root / FOLDER / digest(root)
    cache.mkdir(parents=True, exist_ok=True)
    os.utime(cache)
    os.environ["NUMBA_CACHE_DIR"] = str(cache)
    for old in sorted(cache.parent.iterdir(), key=lambda folder: folder.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":  # for coverage's --include
    print(*(path.relative_to(Path.cwd()) for path in kernel_files(Path.cwd())), sep=",")
