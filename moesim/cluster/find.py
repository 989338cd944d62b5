"""Where topologies are: in ``topologies/`` of a checkout, in the package's data once installed, or in their name."""

import difflib
from pathlib import Path

from moesim.errors import InputError
from moesim.regular_clusters import EXAMPLES, RegularCluster

_PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = (_PACKAGE.parent / "topologies", _PACKAGE / "data" / "topologies")
SUFFIXES = (".yaml", ".yml")


def topology_names() -> list[str]:
    """Return the bare names of the topologies that come with moesim, sorted."""
    return sorted(path.stem for folder in FOLDERS for path in folder.glob("*.yaml"))


def find_topology(name_or_path: str | Path) -> Path | RegularCluster:
    """Return the file of a topology that is given by bare name (``h800-8x8-rail``) or by path.

    A name without a folder is looked for among moesim's own topologies first, then as a file, then read as that of a
    regular cluster.

    Raises:
        InputError: there is no such topology; suggests the nearest name and lists them all.
    """
    text = str(name_or_path)
    given = Path(text)
    own = [folder / f"{_stem(text)}.yaml" for folder in FOLDERS] if given.name == text else []
    for path in (*own, given):
        if _is_file(path):
            return path
    names = topology_names()
    near = difflib.get_close_matches(_stem(given.name), names, n=1)
    guess = f"did you mean {near[0]!r}?" if near else ""
    try:
        if given.name == text and (regular := RegularCluster.read(text)) is not None:
            return regular
    except InputError as error:
        guess = error.fix
    others = f"give a path, a regular cluster's name such as {EXAMPLES}, or one of {', '.join(names)}"
    raise InputError(f"no topology {text!r:.100}", fix=f"{guess} {others}".lstrip())


def _stem(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system is not a file
        return False
