"""One host: which NICs each GPU takes, and what NVLink joins.

A GPU takes its nearest NICs where those are behind the same PCIe bridges (PIX, PXB). A GPU without such takes, among
the nearest compute NICs, the least used, then the lowest. A NIC that is nearest to no GPU (storage, DPU) is not
compute.
"""

from dataclasses import dataclass, field

from moesim.topology_files.imported import Answers, Imported
from moesim.topology_files.listing import in_words

DISTANCES = ("PIX", "PXB", "PHB", "NODE", "SYS")
NEAR = ("PIX", "PXB")


@dataclass
class Host:
    """GPUs, NICs and links of one host; rates in bytes/s, None where the file does not say."""

    gpus: list[str]
    nics: list[str]
    distance: dict[str, dict[str, str]]
    """GPU to NIC to PIX ... SYS."""
    switch_links: dict[str, int] = field(default_factory=dict)
    """GPU to its NVLinks towards NVSwitches."""
    pairs: dict[tuple[str, str], int] = field(default_factory=dict)
    """Two GPUs to the NVLinks between them."""
    link_rate: float | None = None
    """Of one NVLink."""
    nvlink_unknown: bool = False
    """The file's form does not hold NVLinks, so that none in it does not mean none."""
    gpu: str = ""
    """The model that the file fits, the likeliest first."""
    nic_rate: dict[str, float] = field(default_factory=dict)
    pcie: dict[str, float] = field(default_factory=dict)
    """Of a GPU or NIC towards its bridge."""
    bridge: dict[str, str] = field(default_factory=dict)
    """GPU to the host bridge that it is behind."""
    nic_of_gpu: dict[str, list[str] | None] = field(default_factory=dict)

    @property
    def used(self) -> list[str]:
        """The NICs that some GPU takes."""
        return [nic for nic in self.nics if any(nic in (nics or ()) for nics in self.nic_of_gpu.values())]

    @property
    def nvlinks(self) -> dict[tuple[str, str], int]:
        """Both ends of all NVLinks, the switches as one, to their number."""
        return {(gpu, "nvswitch"): count for gpu, count in self.switch_links.items()} | self.pairs

    @property
    def domains(self) -> list[list[int]]:
        """GPUs that NVLink joins, by their numbers."""
        groups = [[number] for number in range(len(self.gpus))]
        if self.switch_links or self.nvlink_unknown:
            return [list(range(len(self.gpus)))]
        for pair in self.pairs:
            ends = {self.gpus.index(gpu) for gpu in pair}
            joined = sorted(number for group in groups if ends & set(group) for number in group)
            groups = sorted([group for group in groups if not ends & set(group)] + [joined])
        return groups


def pair_nics(host: Host, imported: Imported, answers: Answers) -> None:
    """Decide which NICs each GPU takes; facts get the pairs, ties, and what is not compute."""
    facts, cells = imported.facts, {host.distance[gpu][nic] for gpu in host.gpus for nic in host.nics}
    alike = len(cells) == 1 and len(host.nics) > 1 and not cells & set(NEAR)
    facts["nic_of_gpu"], facts["not_compute"] = dict.fromkeys(host.gpus) if alike else host.nic_of_gpu, []
    host.nic_of_gpu.update(dict.fromkeys(host.gpus) if alike else {gpu: [] for gpu in host.gpus})
    if alike:
        (cell,) = cells
        facts["ambiguous"] = f"every GPU-NIC cell is {cell}: the matrix cannot pair them"
        imported.warn(f"all GPU-NIC distances are {cell}: give the NICs of the GPUs")
    names, some = answers.nic_map, ", ".join(host.nics[:12])
    unknown = [name for name in names if name not in host.nics]
    if unknown or (names and len(names) != len(host.gpus)):
        what = f"{unknown[0]} is no NIC of the file" if unknown else f"{len(names)} NICs for {len(host.gpus)} GPUs"
        imported.ask("--nic-map", f"{what}; name one of {some} for each GPU")
    elif names:
        host.nic_of_gpu.update({gpu: [nic] for gpu, nic in zip(host.gpus, names, strict=True)})
        imported.sources["nic_of_gpu"] = "from --nic-map"
    elif alike:
        imported.ask("--nic-map", f"the NIC of each GPU, {len(host.gpus)} names of {some}")
    elif host.nics:
        _by_distance(host, imported)


def _by_distance(host: Host, imported: Imported) -> None:
    far = {gpu: {nic: DISTANCES.index(cell) for nic, cell in row.items()} for gpu, row in host.distance.items()}
    least = {gpu: min(row.values()) for gpu, row in far.items()}
    nearest = {gpu: [nic for nic in host.nics if row[nic] == least[gpu]] for gpu, row in far.items()}
    own = [gpu for gpu in host.gpus if DISTANCES[least[gpu]] in NEAR]
    compute = {nic for gpu in own for nic in nearest[gpu]}
    for gpu in host.gpus:  # a GPU all of whose compute NICs are farther than another has that one for its own
        if not compute or min(far[gpu][nic] for nic in compute) > least[gpu]:
            compute |= set(nearest[gpu])
    used, ties = dict.fromkeys(host.nics, 0), dict[str, list[str]]()
    for gpu in [*own, *(gpu for gpu in host.gpus if gpu not in own)]:
        taken = nearest[gpu]
        if gpu not in own:
            able = [nic for nic in host.nics if nic in compute]
            able = [nic for nic in able if far[gpu][nic] == min(far[gpu][one] for one in able)]
            taken = [min(able, key=lambda nic: (used[nic], host.nics.index(nic)))]
            ties |= {gpu: able} if len(able) > 1 else {}
        host.nic_of_gpu[gpu] = taken
        used |= {nic: used[nic] + 1 for nic in taken}
    imported.facts["not_compute"] = [nic for nic in host.nics if nic not in compute]
    most = max(used.values())
    if len(compute) < len(host.gpus) and most > 1 and len(host.domains) == 1:
        cards = f"{len(compute)} compute NIC{'s' if len(compute) > 1 else ''}"
        imported.warn(f"{cards} for {len(host.gpus)} GPUs: {in_words(most)} GPUs share one NIC")
    if ties:
        imported.facts["ties"] = ties
        than = " or ".join(sorted({DISTANCES[least[gpu]] for gpu in ties}))
        how = "ties broken by the least used NIC, then the lowest index"
        imported.warn(f"{', '.join(ties)} have no NIC nearer than {than}; {how}")
    last, jumps = -1, list[str]()
    for gpu, nics in host.nic_of_gpu.items():
        places = [host.nics.index(nic) for nic in nics or ()]
        if places and places[0] > last + 1:
            jumps.append(f"of {gpu}{'' if jumps else ' is'} {host.nics[places[0]]}")
        last = max(places, default=last)
    if jumps:
        imported.warn(f"NIC order differs from GPU order: rail {', '.join(jumps)}")
