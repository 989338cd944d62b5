"""Where the files that a scenario names are, and how far its paths may reach.

A bare name (``h800-8x8-rail``) is one of moesim's own: from ``scenarios/`` or ``topologies/`` of a checkout,
from the package's data once installed. Anything with a folder or a file suffix is a path: relative to the
folder of the scenario, never out of it (no ``..``, no symbolic link that leads outside), or absolute.
"""

import os
from pathlib import Path
from typing import Literal

from moesim.errors import InputError

_PACKAGE = Path(__file__).resolve().parent.parent
SUFFIXES = (
    ".yaml", ".yml", ".json", ".jsonl", ".npz", ".npy", ".csv", ".parquet", ".txt", ".pt", ".safetensors", ".gguf",
)  # fmt: skip


def shipped_names(folder: Literal["scenarios", "topologies", "recordings", "calibration"]) -> list[str]:
    """Return the bare names of moesim's own files of a kind, sorted."""
    suffix = ".npz" if folder == "recordings" else ".yaml"
    return sorted({path.stem for root in _roots(folder) for path in root.glob(f"*{suffix}")})


def shipped_scenario(name: str) -> Path | None:
    """Return the file of one of moesim's own scenarios, None if there is no such name."""
    return next((path for root in _roots("scenarios") if (path := root / f"{name}.yaml").is_file()), None)


def _roots(folder: str) -> tuple[Path, ...]:
    return (_PACKAGE.parent / folder, _PACKAGE / "data" / folder)


def is_path(value: str) -> bool:
    """Return whether a value of a scenario is a path (a folder or a known suffix in it) and not a bare name."""
    return "/" in value or "\\" in value or value.lower().endswith(SUFFIXES)


def refuse_escape(value: str) -> str:
    """Return a name or path as it is.

    Raises:
        InputError: empty, unprintable, or with ``~``, ``..`` or a variable of the environment in it.
    """
    if not value or len(value) > 1000 or any(not character.isprintable() for character in value):
        raise InputError(f"{value[:60]!r} is not a name or path")
    parts = value.replace("\\", "/").split("/")
    if ".." in parts or parts[0].startswith("~") or "$" in value or value.startswith("\\\\"):
        raise InputError(
            f"{value!r:.80} leads out of the scenario's folder",
            fix="give a bare name, a path below the scenario's folder, or an absolute path",
        )
    return value


def contained(value: str, base: Path, folder: bool = False) -> Path:
    """Return the absolute path of a value that ``is_path``, relative to ``base`` (or absolute as given).

    With ``folder`` it may be one.

    Raises:
        InputError: the path leads out of ``base``, symbolic links included, or no such file.
    """
    refuse_escape(value)
    path = Path(value)
    if not path.is_absolute():
        root = Path(os.path.realpath(base))  # unlike resolve, it takes a loop of links as it is
        path = Path(os.path.realpath(root / path))
        if not path.is_relative_to(root):
            raise InputError(f"{value!r:.80} leads out of the folder {base}", fix="give an absolute path instead")
    if not path.is_file() and not (folder and path.is_dir()):
        raise InputError(f"no such file{' or folder' if folder else ''}: {path}")
    return path
