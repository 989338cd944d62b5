"""What a person says beside a file, and what a file gave: facts, a topology, the source of each number.

A topology file of another tool seldom says all. What is missing is asked for by the name of its option, never filled in
silently; a number is from the file, from a data sheet or assumed, and says so.
"""

from dataclasses import dataclass, field
from typing import Any

from moesim.errors import InputError

Facts = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """Options of the importer: what the files do not say. Rates in bytes/s of one direction."""

    gpu: str = ""
    nic: float | None = None
    nvlink: float | None = None
    pcie: float | None = None
    smp: float | None = None
    nic_map: tuple[str, ...] = ()
    nvlink_domain: int | None = None
    gpus_per_node: int | None = None
    nodes: int | None = None
    fabric: str = ""
    spines: int | None = None
    nodes_per_leaf: int | None = None


@dataclass
class Imported:
    """What a file gave.

    Attributes:
        facts: as JSON: format, devices, links, pairing of GPUs and NICs, warnings.
        spec: the content of a topology file; None where answers are missing or none can be made.
        asked: option and what it tells, for what is missing.
        sources: key of the topology file and where its number is from.
    """

    facts: Facts
    spec: Facts | None = None
    asked: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.facts |= {key: self.facts.get(key, []) for key in ("devices", "links", "warnings")}

    def ask(self, option: str, what: str) -> None:
        """Note that an option is needed."""
        self.asked.setdefault(option, what)

    def warn(self, *lines: str) -> None:
        """Add warnings."""
        self.facts["warnings"].extend(lines)

    def device(self, name: str, kind: str, **about: Any) -> None:
        """Add a device to the facts."""
        self.facts["devices"].append({"name": name, "kind": kind} | about)

    def link(self, source: str, target: str, link_class: str, **about: Any) -> None:
        """Add a link to the facts."""
        self.facts["links"].append({"source": source, "target": target, "class": link_class} | about)

    def ask_gpu(
        self, answers: Answers, known: str = "", source: str = "assumed: the likeliest that fits the file"
    ) -> str:
        """Return the GPU's model by the answers or the file; asks where neither says."""
        if not (answers.gpu or known):
            self.ask("--gpu", "the GPU's model, such as h100")
        else:
            self.sources["gpu"] = "from --gpu" if answers.gpu else source
        return answers.gpu or known

    def complete(self, where: str) -> Facts:
        """Return the topology.

        Raises:
            InputError: answers are missing, or no topology can be made of the file.
        """
        form = self.facts["format"]
        if self.asked:
            what = "; ".join(f"{option} ({what})" for option, what in self.asked.items())
            raise InputError(f"{form} does not say all of the cluster", where, f"give {what}")
        if self.spec is None:
            why = self.facts.get("use") or self.facts.get("moesim_note") or ""
            raise InputError(f"no topology can be made of {form}", where, str(why))
        return self.spec
