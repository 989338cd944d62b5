"""What a person says beside a file, and what a file gave: facts, a topology, the source of each number.

A topology file of another tool seldom says all. What is missing is asked for by the name of its option, never filled in
silently; a number is from the file, from a data sheet or assumed, and says so.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from moesim.errors import InputError
from moesim.units import parse_bandwidth

Facts = dict[str, Any]

# NVLink of a GPU: GB/s of one link and direction, links. NVIDIA's data sheets; A800 and H800 have fewer links.
NVLINKS: dict[str, tuple[float, int]] = {
    "p100": (20, 4), "v100": (25, 6), "a100": (25, 12), "a800": (25, 8), "h100": (25, 18), "h200": (25, 18),
    "h20": (25, 18), "gh200": (25, 18), "h800": (25, 8), "b200": (50, 18), "gb200": (50, 18), "b300": (50, 18),
    "gb300": (50, 18), "a40": (14.0625, 4), "a6000": (14.0625, 4), "rtx3090": (14.0625, 4),
}  # fmt: skip


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

    def ask(self, option: str, what: str) -> None:
        """Note that an option is needed."""
        self.asked.setdefault(option, what)

    def warn(self, *lines: str) -> None:
        """Add warnings."""
        self.facts.setdefault("warnings", []).extend(lines)

    def complete(self, where: str) -> Facts:
        """Return the topology.

        Raises:
            InputError: answers are missing, or no topology can be made of the file.
        """
        if self.asked:
            what = "; ".join(f"{option} ({what})" for option, what in self.asked.items())
            raise InputError(f"{self.facts['format']} does not say all of the cluster", where, f"give {what}")
        if self.spec is None:
            raise InputError(
                f"no topology can be made of {self.facts['format']}", where, str(self.facts.get("use", ""))
            )
        return self.spec


def nvlink_rate(imported: Imported, answers: Answers, links: int | None = None) -> float | None:
    """Bytes/s of a GPU's NVLinks by the answers or the data sheet; asks where neither says."""
    if answers.nvlink is not None:
        imported.sources["nvlink"] = "from --nvlink"
        return answers.nvlink
    if answers.gpu in NVLINKS:
        each, most = NVLINKS[answers.gpu]
        count = most if links is None else min(links, most)
        if links is not None and links > most:
            imported.warn(
                f"NV{links} on {a_gpu(answers.gpu)}, which has {most} NVLinks: capped at its {each * most:g} GB/s"
            )
        imported.sources["nvlink"] = f"data sheet: {count} x {each:g} GB/s of {a_gpu(answers.gpu)}"
        return each * count * 1e9
    if answers.gpu:
        imported.ask("--nvlink", f"the NVLink rate of {answers.gpu}, such as 450GB/s")
    return None


def a_gpu(name: str) -> str:
    """The GPU's name with its article: "an H100"."""
    return f"{'an' if name[:1] in 'ahlr' else 'a'} {name.upper()}"


def gbps(rate: float | None) -> str:
    """Write bytes/s as GB/s, six digits."""
    return f"{(rate or 0) / 1e9:.6g}GB/s"


def network_gbps(rate: float | None) -> str:
    """Write bytes/s of a network port as people name it: whole Gb/s, else GB/s."""
    bits = (rate or 0) * 8e-9
    return f"{bits:.0f}Gb/s" if abs(bits - round(bits)) < 1e-6 else gbps(rate)


PCIE = {2.5: 0.8, 5.0: 0.8, 8.0: 128 / 130, 16.0: 128 / 130, 32.0: 128 / 130, 64.0: 1.0}
"""Share of the raw bits that is payload, by GT/s of a lane."""


def pcie_peak(gt_per_s: float, lanes: int) -> float:
    """Bytes/s of a PCIe link, one direction."""
    return lanes * gt_per_s / 8 * PCIE.get(gt_per_s, 128 / 130) * 1e9


def parse_pcie(text: str) -> float:
    """Read ``gen5 x16`` or a bandwidth; bytes/s of one direction.

    Raises:
        InputError: neither.
    """
    match = re.fullmatch(r"\s*gen([1-6])\s*x(1|2|4|8|16)\s*", text)
    if match is None:
        return parse_bandwidth(text)
    return pcie_peak(list(PCIE)[int(match[1]) - 1], int(match[2]))
