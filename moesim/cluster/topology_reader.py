"""Finding and reading a topology: in a checkout, in the package's data, a file, or a name that says it.

Of a file every mistake is told at once, each with file, line and column.
"""

import difflib
from pathlib import Path
from typing import Any

from moesim.cluster.build import build_fabric
from moesim.cluster.fabric import Fabric
from moesim.cluster.graph import NIC
from moesim.cluster.topology_spec import KINDS, AnyTopology, ExplicitTopology
from moesim.errors import InputError
from moesim.located_yaml import MANY_VALUES, LocatedDocument, load_yaml, validate
from moesim.mistakes import did_you_mean
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


def load_topology(name_or_path: str | Path, nic_bandwidth: float | None = None) -> Fabric:
    """Return the fabric of a topology.

    Args:
        name_or_path: one of moesim's own (``h800-8x8-rail``), a regular cluster's name (``h200-4x8-rail``) or a file.
        nic_bandwidth: bytes/s instead of the file's for every NIC; uplinks given by oversubscription follow.

    Raises:
        InputError: no such topology, mistakes in the file, a bandwidth that is not positive.
    """
    found = find_topology(name_or_path)
    spec = read_topology(found)
    if nic_bandwidth is not None:
        spec = with_nic_bandwidth(spec, nic_bandwidth)
    return build_fabric(spec, *((found.stem, str(found)) if isinstance(found, Path) else (found.name,)))


def read_topology(found: str | Path | RegularCluster) -> AnyTopology:
    """Return the checked content of a topology file, or what a regular cluster's name says.

    Raises:
        InputError: the mistakes of the file, all of them, each with its line.
    """
    if isinstance(found, RegularCluster):
        return checked_topology(LocatedDocument(found.content(), found.name))
    return checked_topology(load_yaml(found, MANY_VALUES))


def checked_topology(document: LocatedDocument) -> AnyTopology:
    """Return the checked content of a topology that is read as YAML already.

    Raises:
        InputError: as ``read_topology``.
    """
    if not isinstance(document.data, dict):
        raise document.error((), "a topology is a block of keys", "start with kind: and gpu:")
    if "kind" not in document.data:
        raise document.error((), "the key kind is required", f"kinds: {', '.join(KINDS)}")
    kind = document.data["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise document.error(("kind",), f"unknown kind {kind!r:.60}", did_you_mean(kind, list(KINDS), "kinds"))
    model: Any = KINDS[kind]
    spec: AnyTopology = validate(model, document)
    return spec


def with_nic_bandwidth(spec: AnyTopology, bandwidth: float) -> AnyTopology:
    """Return the topology with another bandwidth (bytes/s) of every NIC.

    Raises:
        InputError: the bandwidth is not positive, or the topology has no NIC.
    """
    if not 0 < bandwidth < float("inf"):
        raise InputError(f"a NIC bandwidth of {bandwidth} is not positive and finite", where="cluster.nic_bandwidth")
    if isinstance(spec, ExplicitTopology):
        if any(link.link_class == NIC for link in spec.links):
            links = tuple(
                link.model_copy(update={"bandwidth": bandwidth}) if link.link_class == NIC else link
                for link in spec.links
            )
            return spec.model_copy(update={"links": links})
    elif spec.nic is not None:
        return spec.model_copy(update={"nic": spec.nic.model_copy(update={"bandwidth": bandwidth})})
    raise InputError(
        "the topology has no NIC", where="cluster.nic_bandwidth", fix="remove it or choose another topology"
    )
