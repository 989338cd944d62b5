"""Regular clusters by name: ``h200-4x8-rail``, ``b200-16x8-leaf-spine-2to1``, ``hgx-b300``, ``gb300-nvl72``.

Such a name is read, not filed: it says the GPU, how many nodes of how many GPUs, the fabric, how far leaves are
oversubscribed, and NICs of a node where it has not one for each GPU (``h100-4x8-rail-4nics``). What it leaves out is
as in the files under ``topologies/`` of that kind: one NIC per GPU at the GPU's usual speed, latencies and spreading of
the fabric. A file of the same name comes first, and means the same.

Knows no arrays: the scenario checks its keys here, ``cluster`` builds what ``content`` says.
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from moesim.errors import InputError
from moesim.located_yaml import load_yaml
from moesim.mistakes import did_you_mean

FabricKind = Literal["rail", "leaf-spine", "multi-plane"]
EXAMPLES = "h200-4x8-rail or b200-16x8-leaf-spine-2to1"
# Of each fabric what its name does not say. Rail and multi-plane: InfiniBand with adaptive routing (latencies:
# DeepSeek-AI, "Insights into DeepSeek-V3", ISCA 2025, table 5). Leaf-spine: RoCE and ECMP (same table), two nodes a
# leaf, oversubscribed two to one unless the name says otherwise.
_INFINIBAND = {"nic_latency": "2.8us", "spine_latency": "0.9us", "oversubscription": 1, "routing": "spray"}
_ROCE = {"nic_latency": "3.6us", "spine_latency": "2us", "oversubscription": 2, "routing": "hash"}
_USUAL: dict[str, dict[str, Any]] = {
    "rail": _INFINIBAND | {"spines": 8},
    "leaf-spine": _ROCE | {"spines": 4, "nodes_per_leaf": 2},
    "multi-plane": _INFINIBAND | {"spines": 4, "nodes_per_leaf": 32},
}
_HGX = re.compile(r"hgx-([a-z0-9.]+)")
_DOMAIN = re.compile(r"([a-z0-9.]+)-nvl([1-9][0-9]{0,4})")
_SEVERAL = re.compile(
    r"([a-z0-9.]+)-([1-9][0-9]{0,5})x([1-9][0-9]{0,4})(?:-([a-z_-]+?))?(?:-([1-9][0-9]{0,3})nics)?(?:-([0-9]+(?:\.[0-9]+)?)to1)?"
)


@dataclass(frozen=True)
class RegularCluster:
    """Nodes of a GPU under one of the regular fabrics.

    Attributes:
        gpu: lower-case name.
        nodes: NVLink domains, of ``gpus_per_node`` each. One node alone has no fabric.
        oversubscription: a leaf's capacity towards its GPUs over that towards the spines; None: the fabric's own.
        nics_per_node: NICs of a node, shared where they are fewer than GPUs; None: one for each GPU.

    Raises:
        InputError: no such GPU or fabric.
    """

    gpu: str
    nodes: int = 1
    gpus_per_node: int = 8
    fabric: str = "rail"
    oversubscription: float | None = None
    nics_per_node: int | None = None

    def __post_init__(self) -> None:
        for what, given, known in (("GPU", self.gpu, list(ports())), ("fabric", self.fabric, get_args(FabricKind))):
            if given not in known:
                raise InputError(f"no {what} {given!r:.40}", fix=did_you_mean(given, known, f"{what}s"))

    @classmethod
    def read(cls, name: str) -> "RegularCluster | None":
        """Return the cluster that a name says, None if it is not spelt like one.

        Raises:
            InputError: spelt like one, but with an unknown GPU or fabric; the fix is the whole name.
        """
        text = name.lower()
        if found := _HGX.fullmatch(text):
            parts: dict[str, Any] = {"gpu": found[1]}
        elif found := _DOMAIN.fullmatch(text):
            parts = {"gpu": found[1], "gpus_per_node": int(found[2])}
        elif found := _SEVERAL.fullmatch(text):
            parts = {"gpu": found[1], "nodes": int(found[2]), "gpus_per_node": int(found[3])}
            parts |= {"fabric": found[4] or "", "oversubscription": float(found[6]) if found[6] else None}
            parts |= {"nics_per_node": int(found[5])} if found[5] else {}
        else:
            return None
        try:
            made = cls(**parts)
        except InputError as error:
            fix = _nearest(parts) or f"{error.what}, {error.fix}"
            raise InputError(f"no topology {name!r:.100}", fix=fix) from None
        if text != name:
            raise InputError(f"no topology {name!r:.100}", fix=f"did you mean {text!r}?")
        return made

    def changed(self, **keys: Any) -> "RegularCluster":
        """Return the cluster with some attributes changed; another fabric comes with its own oversubscription.

        Raises:
            InputError: no such GPU or fabric.
        """
        own = {} if keys.get("fabric", self.fabric) == self.fabric else {"oversubscription": None}
        return replace(self, **own | keys)

    @property
    def name(self) -> str:
        """The name that says it."""
        if self.nodes == 1:
            return f"hgx-{self.gpu}" if self.gpus_per_node == 8 else f"{self.gpu}-nvl{self.gpus_per_node}"
        own = self.nics_per_node in (None, self.gpus_per_node)
        nics = "" if own else f"-{self.nics_per_node}nics"
        tail = f"-{self._ratio():.10g}to1" if self._ratio() != 1 or self.fabric == "leaf-spine" else ""
        return f"{self.gpu}-{self.nodes}x{self.gpus_per_node}-{self.fabric}{nics}{tail}"

    def content(self) -> dict[str, Any]:
        """Return what a topology file of it would say."""
        port = ports()[self.gpu]
        node = {"gpu": self.gpu, "gpus_per_node": self.gpus_per_node, "nvlink": {"bandwidth": port["nvlink"]}}
        if self.nodes == 1:
            return {"kind": "hgx", **node, "nic": {"bandwidth": port["nic"]}}
        usual = _USUAL[self.fabric]
        nic = {"bandwidth": port["nic"], "latency": usual["nic_latency"]}
        nic |= {} if self.nics_per_node is None else {"per_node": self.nics_per_node}
        spines = {"spines": usual["spines"], "oversubscription": self._ratio(), "latency": usual["spine_latency"]}
        whole = {"kind": self.fabric, **node, "nodes": self.nodes, "nic": nic, "leaf_spine": spines}
        return whole | {key: usual[key] for key in ("routing", "nodes_per_leaf") if key in usual}

    def _ratio(self) -> float:
        return _USUAL[self.fabric]["oversubscription"] if self.oversubscription is None else self.oversubscription


@cache
def ports() -> dict[str, dict[str, Any]]:
    """Return NVLink and NIC of each GPU whose ports are known, per GPU and direction."""
    path = Path(__file__).resolve().parent / "data" / "calibration_defaults.yaml"
    return dict(load_yaml(path).data["ports"])


def _nearest(parts: dict[str, Any]) -> str:
    """Return the name meant by one with an unknown GPU or fabric: each replaced by its nearest."""
    from difflib import get_close_matches

    known = {"gpu": list(ports()), "fabric": list(get_args(FabricKind))}
    meant = {key: get_close_matches(parts.get(key) or "rail", words, 1, 0.5) for key, words in known.items()}
    if not all(meant.values()):
        return ""
    return f"did you mean {RegularCluster(**parts | {key: near[0] for key, near in meant.items()}).name!r}?"
