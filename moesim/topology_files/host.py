"""One host: which NICs each GPU takes, and what NVLink joins.

A GPU takes its nearest NICs where those are behind the same PCIe bridges (PIX, PXB). A GPU without such takes, among
the nearest compute NICs, the least used, then the lowest. A NIC that is nearest to no GPU (storage, DPU) is not
compute.
"""

from dataclasses import dataclass, field

from moesim.topology_files.imported import Answers, Imported

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
    functions: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of NICs that are one card's."""
    nic_of_gpu: dict[str, list[str] | None] = field(default_factory=dict)

    @property
    def domains(self) -> list[list[int]]:
        """GPUs that NVLink joins, by their numbers."""
        if self.switch_links or self.nvlink_unknown:
            return [list(range(len(self.gpus)))]
        root = {gpu: gpu for gpu in self.gpus}
        for one, other in self.pairs:
            kept, gone = root[one], root[other]
            root = {gpu: kept if at == gone else at for gpu, at in root.items()}
        groups: dict[str, list[int]] = {}
        for number, gpu in enumerate(self.gpus):
            groups.setdefault(root[gpu], []).append(number)
        return list(groups.values())


def pair_nics(host: Host, imported: Imported, answers: Answers) -> None:
    """Decide which NICs each GPU takes; facts get the pairs, ties, and what is not compute."""
    facts, cells = imported.facts, {host.distance[gpu][nic] for gpu in host.gpus for nic in host.nics}
    alike = len(cells) == 1 and len(host.nics) > 1 and not cells & set(NEAR)
    facts["nic_of_gpu"], facts["not_compute"] = dict.fromkeys(host.gpus) if alike else host.nic_of_gpu, []
    if alike:
        (cell,) = cells
        facts["ambiguous"] = f"every GPU-NIC cell is {cell}: the matrix cannot pair them"
        imported.warn(f"all GPU-NIC distances are {cell}: give the NICs of the GPUs")
    if answers.nic_map:
        _by_answer(host, imported, answers.nic_map)
    elif alike:
        host.nic_of_gpu.update(dict.fromkeys(host.gpus))
        imported.ask("--nic-map", f"the NIC of each GPU, {len(host.gpus)} names of {', '.join(host.nics[:12])}")
    elif host.nics:
        _by_distance(host, imported)
    else:
        host.nic_of_gpu.update({gpu: [] for gpu in host.gpus})


def _by_answer(host: Host, imported: Imported, names: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in host.nics]
    if unknown or len(names) != len(host.gpus):
        what = f"{unknown[0]} is no NIC of the file" if unknown else f"{len(names)} NICs for {len(host.gpus)} GPUs"
        imported.ask("--nic-map", f"{what}; name one of {', '.join(host.nics[:12])} for each GPU")
        return
    host.nic_of_gpu.update({gpu: [nic] for gpu, nic in zip(host.gpus, names, strict=True)})
    imported.sources["nic_of_gpu"] = "from --nic-map"


def _by_distance(host: Host, imported: Imported) -> None:
    far = {gpu: {nic: DISTANCES.index(cell) for nic, cell in row.items()} for gpu, row in host.distance.items()}
    nearest = {gpu: [nic for nic in host.nics if row[nic] == min(row.values())] for gpu, row in far.items()}
    behind_a_bridge = [gpu for gpu in host.gpus if DISTANCES[min(far[gpu].values())] in NEAR]
    compute = {nic for gpu in behind_a_bridge for nic in nearest[gpu]}
    for gpu in host.gpus:  # a GPU all of whose compute NICs are farther than another has that one for its own
        if not compute or min(far[gpu][nic] for nic in compute) > min(far[gpu].values()):
            compute |= set(nearest[gpu])
    used, ties = dict.fromkeys(host.nics, 0), {}
    for gpu in behind_a_bridge:
        host.nic_of_gpu[gpu] = nearest[gpu]
        for nic in nearest[gpu]:
            used[nic] += 1
    for gpu in host.gpus:
        if gpu not in host.nic_of_gpu:
            able = [nic for nic in host.nics if nic in compute]
            least = min(far[gpu][nic] for nic in able)
            able = [nic for nic in able if far[gpu][nic] == least]
            taken = min(able, key=lambda nic: (used[nic], host.nics.index(nic)))
            host.nic_of_gpu[gpu], used[taken] = [taken], used[taken] + 1
            if len(able) > 1:
                ties[gpu] = able
    in_order = {gpu: host.nic_of_gpu[gpu] for gpu in host.gpus}
    host.nic_of_gpu.clear()
    host.nic_of_gpu.update(in_order)
    facts = imported.facts
    if ties:
        facts["ties"] = ties
    facts["not_compute"] = [nic for nic in host.nics if nic not in compute]
    shared = [nic for nic, users in used.items() if users > 1]
    if len(compute) < len(host.gpus) and shared and len(host.domains) == 1:
        most = {1: "one", 2: "two", 3: "three", 4: "four", 8: "eight"}.get(max(used.values()), str(max(used.values())))
        cards = f"{len(compute)} compute NIC{'s' if len(compute) > 1 else ''}"
        imported.warn(f"{cards} for {len(host.gpus)} GPUs: {most} GPUs share one NIC")
    if ties:
        nearest_of = {DISTANCES[min(far[gpu].values())] for gpu in ties}
        imported.warn(
            f"{', '.join(ties)} have no NIC nearer than {' or '.join(sorted(nearest_of))}; "
            "ties broken by the least used NIC, then the lowest index"
        )
    _warn_of_order(host, imported)


def _warn_of_order(host: Host, imported: Imported) -> None:
    last, jumps = -1, []
    for gpu, nics in host.nic_of_gpu.items():
        at = host.nics.index(nics[0]) if nics else last
        if at > last + 1:
            jumps.append((gpu, nics[0] if nics else ""))
        last = at
    if jumps:
        first, *others = jumps
        more = "".join(f", of {gpu} {nic}" for gpu, nic in others)
        imported.warn(f"NIC order differs from GPU order: rail of {first[0]} is {first[1]}{more}")
