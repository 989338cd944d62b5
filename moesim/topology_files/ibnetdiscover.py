"""``ibnetdiscover``: switches, the HCAs of each host, and their links; every link is in the file twice.

A leaf has HCAs. GPUs and NVLink are not in it: they come from a file of one host (joined by the HCAs' names) or from
options. Aggregation nodes (SHARP) and routers are no network.
"""

import re
from collections import Counter, defaultdict

from moesim.errors import InputError
from moesim.topology_files.file_text import MAX_DEVICES
from moesim.topology_files.host import Host
from moesim.topology_files.host_topology import nic_cards, node_inside
from moesim.topology_files.imported import Answers, Facts, Imported
from moesim.topology_files.link_rates import nvlink_rate
from moesim.topology_files.listing import MAX_GPUS, cable, device_name, explicit, gbps, in_words, network_gbps
from moesim.topology_files.two_tiers import TwoTiers

# Gb/s of a lane.
LANES = {"SDR": 2.5, "DDR": 5, "QDR": 10, "FDR10": 10, "FDR": 14, "EDR": 25, "HDR": 50, "NDR": 100, "XDR": 200}

_BLOCK = re.compile(r'^(Switch|Ca|Rt)\s+[0-9]+\s+"([SHR]-[0-9a-fA-F]+)"\s*#\s*"([^"]*)"')
_PORT = re.compile(
    r'^\[([0-9]+)\](?:\[ext [0-9]+\])?(?:\([0-9a-fA-F]+\))?\s+"([SHR]-[0-9a-fA-F]+)"\[([0-9]+)\]'
    r".*?([0-9]+)x([A-Z]+[0-9]*)"
)


def read_ibnetdiscover(text: str, where: str, answers: Answers, host: Host | None) -> Imported:
    """Return the facts of a fabric, and the cluster with ``host`` behind its HCAs.

    Raises:
        InputError: an unknown speed, too many devices.
    """
    return _Fabric(text, where).read(answers, host)


class _Fabric:
    """HCAs, switches and links by name; links counted once, a list of the rates of parallel ones."""

    def __init__(self, text: str, where: str) -> None:
        self.nics: dict[str, str] = {}
        self.switches: dict[str, str] = {}
        self.dropped: list[str] = []
        ports: dict[frozenset[tuple[str, int]], tuple[float, str]] = {}
        at = ""
        for number, line in enumerate(text.split("\n"), 1):
            if (block := _BLOCK.match(line)) is not None:
                at = block[2]
                self._device(block[1], at, block[3])
            elif (port := _PORT.match(line)) is not None and at:
                if port[5] not in LANES:
                    raise InputError(f"unknown speed {port[5]}", f"{where}:{number}", f"known: {', '.join(LANES)}")
                rate = min(int(port[4][:3]), 12) * LANES[port[5]] / 8 * 1e9
                ports[frozenset(((at, int(port[1][:6])), (port[2], int(port[3][:6]))))] = rate, port[5]
            if len(self.nics) + len(self.switches) > MAX_DEVICES or len(ports) > 10 * MAX_DEVICES:
                raise InputError(f"more than {MAX_DEVICES:,} devices", where, "give the part of the fabric in use")
        name = self.nics | self.switches
        links: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.speed: dict[str, str] = {}
        for ends, (rate, speed) in ports.items():
            pair = sorted((guid for guid, _ in ends), key=lambda guid: guid not in self.nics)
            if len(pair) == 2 and all(guid in name for guid in pair):
                links[name[pair[0]], name[pair[1]]].append(rate)
                self.speed[name[pair[0]]] = speed
        hcas = set(self.nics.values())
        self.leaf = {nic: leaf for nic, leaf in sorted(links, key=lambda pair: _natural(pair[0])) if nic in hcas}
        self.rate = {nic: sum(links[nic, leaf]) for nic, leaf in self.leaf.items()}
        self.up: dict[tuple[str, str], list[float]] = defaultdict(list)
        for (one, other), rates in links.items():
            if one not in hcas:
                self.up[(one, other) if one in self.leaf.values() else (other, one)].extend(rates)
        self.count = {nic: len(links[nic, leaf]) for nic, leaf in self.leaf.items()}

    def _device(self, block: str, guid: str, name: str) -> None:
        if block == "Rt" or "Aggregation Node" in name:
            self.dropped.append(name)
        elif block == "Ca":
            host, _, hca = name.strip().rpartition(" ")
            self.nics[guid] = f"{host or guid}/{hca}"
        else:
            box = re.fullmatch(r"MF0;([^:;]+):[^/]*(/U[0-9]+)?", name)
            plain = name if box is None else box[1]
            if plain in self.switches.values():
                plain += (box and box[2]) or f"-{guid[-4:]}"
            self.switches[guid] = plain

    def read(self, answers: Answers, host: Host | None) -> Imported:
        imported = Imported({"format": "ibnetdiscover", "not_network": list(dict.fromkeys(self.dropped))})
        for nic in sorted(self.nics.values(), key=_natural):
            imported.device(nic, "nic", host=nic.rpartition("/")[0])
        leaves = set(self.leaf.values())
        for switch in sorted(self.switches.values(), key=lambda switch: switch not in leaves):
            imported.device(switch, "switch", tier="leaf" if switch in leaves else "spine")
        for nic, leaf in self.leaf.items():
            imported.link(nic, leaf, "nic", count=self.count[nic], GBps=self.rate[nic] / 1e9)
        for (leaf, spine), rates in sorted(self.up.items(), key=lambda item: _natural("/".join(item[0]))):
            imported.link(leaf, spine, "leaf-spine", count=len(rates), GBps=sum(rates) / 1e9)
        by_host: dict[str, list[str]] = defaultdict(list)
        for nic in self.leaf:
            by_host[nic.rpartition("/")[0]].append(nic)
        if not by_host:
            imported.facts["moesim_note"] = "no HCA of a host is in the file"
            return imported
        usual, count = Counter(self.speed[nic] for nic in self.leaf).most_common(1)[0]
        for nic in self.leaf if 2 * count > len(self.leaf) else ():
            if self.speed[nic] != usual:
                slow = f"{nic.replace('/', ' ')} runs at {self.speed[nic]} ({self.rate[nic] * 8e-9:g} Gb/s)"
                others = f"{in_words(count)} neighbour{'s' * (count > 1)}"
                imported.warn(f"{slow}, its {others} at {usual}: degraded link")
        every = self._tiers(list(by_host.values()))
        kind, _ = every.shape()
        if kind:
            on = "all HCAs of a host on one leaf" if kind == "leaf-spine" else "mlx5_r of every host on leaf r"
            twice = "every link is in the file twice, once from each end: count it once"
            imported.facts["shape"] = f"{kind}: {on}, {every.spines} spines; {twice}"
        imported.facts["oversubscription"] = {leaf: round(r, 6) for leaf, r in every.oversubscription().items()}
        self._topology(imported, answers, host, by_host)
        return imported

    def _tiers(self, hosts: list[list[str]]) -> TwoTiers:
        place = {(n, i): nic for n, own in enumerate(hosts) for i, nic in enumerate(own)}
        leaf, rate = ({at: of[nic] for at, nic in place.items()} for of in (self.leaf, self.rate))
        return TwoTiers(leaf, rate, {pair: sum(rates) for pair, rates in self.up.items()})  # type: ignore[arg-type]

    def _topology(self, imported: Imported, answers: Answers, host: Host | None, by_host: dict[str, list[str]]) -> None:
        cards = (nic_cards(host) if host is not None and not answers.nic_map else {}) or {}
        order = _gpu_nics(imported, answers, host, by_host, shared="gpus" in cards)
        gpu = imported.ask_gpu(answers, host.gpu if host is not None else "")
        if host is None:
            rate = nvlink_rate(imported, answers)
            inside: Facts = {"nvlink": {"bandwidth": gbps(rate)}} if rate else {}
        else:
            inside = node_inside(host, imported, answers)
        if imported.asked or order is None:
            return
        imported.sources |= dict.fromkeys(("nic", "leaf_spine", "links"), "from the file")
        tiers = self._tiers([[f"{name}/{hca}" for hca in order] for name in by_host])
        usual = Counter(tiers.nic.values()).most_common(1)[0][0]
        slow = [(n, i, rate) for (n, i), rate in tiers.nic.items() if rate != usual]
        spec = tiers.spec(gpu, inside) if inside and 2 * len(slow) < len(tiers.nic) else None
        if spec is not None and "gpus" in cards:
            spec |= {"gpus_per_node": sum(map(len, cards["gpus"])), "nic": spec["nic"] | cards}
        if spec is not None and slow:
            first = [own[0] for own in cards.get("gpus", [[i] for i in range(len(order))])]
            shown = [f"{{where: n{n}.gpu{first[i]}.nic, bandwidth: {network_gbps(rate)}}}" for n, i, rate in slow[:8]]
            how = f"in a scenario, cluster: {{overrides: [{', '.join(shown)}]}}"
            imported.facts["moesim_note"] = f"kind {spec['kind']} has links alike; the degraded link: {how}"
        elif spec is None and ("gpus" in cards or "nvlink" not in inside or len(tiers.leaf) > MAX_GPUS):
            why = f"more than {MAX_GPUS:,} GPUs, shared NICs or GPUs that NVLink does not join cannot be listed"
            imported.facts["moesim_note"] = f"no regular kind holds it, and {why}"
        elif spec is None:
            spec = _listed(gpu, inside["nvlink"]["bandwidth"], tiers, len(by_host))
            imported.facts["moesim_note"] = "no regular kind holds it: listed link by link"
        imported.spec = spec


def _gpu_nics(
    imported: Imported, answers: Answers, host: Host | None, by_host: dict[str, list[str]], shared: bool
) -> list[str] | None:
    """HCA of each GPU (or group of GPUs that share one) of a node, in their order; asks where nothing says it."""
    common, *others = [[nic.rpartition("/")[2] for nic in own] for own in by_host.values()]
    order = list(answers.nic_map)
    if not order and host is not None:
        taken = [host.nic_of_gpu.get(gpu) or [] for gpu in host.gpus]
        order = list(dict.fromkeys(nics[0] for nics in taken if len(nics) == 1))
        if len(order) < len(taken) and not shared:
            imported.ask("--nic-map", "one HCA for each GPU of a node")
    elif not order:
        order = common
        if answers.gpus_per_node is None:
            imported.ask("--gpus-per-node", "GPUs of a host; GPU i is on the i-th of its HCAs, else add --nic-map")
    lacking = next(
        (f"{name} has no {hca}" for name, own in by_host.items() for hca in order if f"{name}/{hca}" not in own), ""
    )
    if answers.gpus_per_node not in (None, len(order)) and not shared:
        imported.ask("--nic-map", f"one HCA for each of {answers.gpus_per_node} GPUs, of {', '.join(common[:12])}")
    elif lacking:
        imported.ask("--nic-map", f"HCAs that every host has: {lacking}")
    if imported.asked:
        return None
    unlike = next((name for name, own in zip(list(by_host)[1:], others, strict=True) if own != common), "")
    if unlike:
        imported.warn(f"{unlike} has other HCAs than the first host")
    by = "from --nic-map" if answers.nic_map else "by the host's file" if host else "assumed"
    imported.sources["nic_of_gpu"] = by
    return order


def _listed(gpu: str, nvlink: str, tiers: TwoTiers, nodes: int) -> Facts:
    names = {at: device_name(at) for at in [*tiers.leaf.values(), *(spine for _, spine in tiers.up)]}
    devices = [("switch", f"n{n}.nvswitch", n) for n in range(nodes)]
    devices += [("gpu", f"n{n}.gpu{i}", n) for n, i in tiers.leaf] + [("switch", name, -1) for name in names.values()]
    links = [cable(f"n{n}.gpu{i}", f"n{n}.nvswitch", "nvlink", nvlink, "3.33us") for n, i in tiers.leaf]
    for (n, i), leaf in tiers.leaf.items():
        links.append(cable(f"n{n}.gpu{i}", names[leaf], "nic", network_gbps(tiers.nic[n, i]), "2.8us"))
    for (leaf, spine), rate in tiers.up.items():
        links.append(cable(names[leaf], names[spine], "leaf-spine", gbps(rate), "0.9us"))
    return explicit(gpu, devices, links)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts mlx5_10 after mlx5_2."""
    return [
        (int(part), "") if re.fullmatch("[0-9]{1,11}", part) else (-1, part) for part in re.split(r"([0-9]+)", name)
    ]
