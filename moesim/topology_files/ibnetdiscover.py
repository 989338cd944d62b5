"""``ibnetdiscover``: switches, the HCAs of each host, and their links; every link is in the file twice.

A leaf has HCAs. GPUs and NVLink are not in it: they come from a file of one host (joined by the HCAs' names) or from
options. Aggregation nodes (SHARP) and routers are no network.
"""

import re
from collections import Counter, defaultdict

from moesim.errors import InputError
from moesim.topology_files.file_text import MAX_DEVICES
from moesim.topology_files.host import Host
from moesim.topology_files.host_topology import MAX_GPUS
from moesim.topology_files.imported import Answers, Facts, Imported, gbps, network_gbps, nvlink_rate
from moesim.topology_files.two_tiers import TwoTiers

# Gb/s of a lane.
LANES = {"SDR": 2.5, "DDR": 5, "QDR": 10, "FDR10": 10, "FDR": 14, "EDR": 25, "HDR": 50, "NDR": 100, "XDR": 200}

_BLOCK = re.compile(r'^(Switch|Ca|Rt)\s+\d+\s+"([SHR]-[0-9a-fA-F]+)"\s*#\s*"([^"]*)"')
_PORT = re.compile(
    r'^\[(\d+)\](?:\[ext \d+\])?(?:\([0-9a-fA-F]+\))?\s+"([SHR]-[0-9a-fA-F]+)"\[(\d+)\].*?(\d+)x([A-Z]+\d*)'
)


def read_ibnetdiscover(text: str, where: str, answers: Answers, host: Host | None) -> Imported:
    """Return the facts of a fabric, and the cluster with ``host`` behind its HCAs.

    Raises:
        InputError: a port with no device, an unknown speed, too many devices.
    """
    return _Fabric(text, where).read(answers, host)


class _Fabric:
    """HCAs, switches and links by name; links counted once."""

    def __init__(self, text: str, where: str) -> None:
        self.where, self.name, self.kind = where, dict[str, str](), dict[str, str]()
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
            if len(self.name) > MAX_DEVICES or len(ports) > 10 * MAX_DEVICES:
                raise InputError(f"more than {MAX_DEVICES:,} devices", where, "give the part of the fabric in use")
        self.links: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.speed: dict[tuple[str, str], str] = {}
        for ends, (rate, speed) in ports.items():
            pair = tuple(sorted((guid for guid, _ in ends), key=lambda guid: self.kind.get(guid) != "nic"))
            if len(pair) == 2 and all(guid in self.kind for guid in pair):
                names = self.name[pair[0]], self.name[pair[1]]
                self.links[names].append(rate)
                self.speed[names] = speed

    def _device(self, block: str, guid: str, name: str) -> None:
        if block == "Rt" or "Aggregation Node" in name:
            self.dropped.append(name)
            return
        if block == "Ca":
            host, _, hca = name.strip().rpartition(" ")
            self.name[guid], self.kind[guid] = f"{host or guid}/{hca}", "nic"
            return
        box = re.fullmatch(r"MF0;([^:;]+):[^/]*(/U\d+)?", name)
        plain = name if box is None else box[1]
        if plain in self.name.values():
            plain += box[2] if box is not None and box[2] else f"-{guid[-4:]}"
        self.name[guid], self.kind[guid] = plain, "switch"

    def read(self, answers: Answers, host: Host | None) -> Imported:
        nics = sorted(name for guid, name in self.name.items() if self.kind[guid] == "nic")
        nics.sort(key=_natural)
        leaf_of = {one: other for one, other in self.links if one in set(nics)}
        leaves = set(leaf_of.values())
        switches = [name for guid, name in self.name.items() if self.kind[guid] == "switch"]
        switches.sort(key=lambda name: name not in leaves)
        up: dict[tuple[str, str], list[float]] = defaultdict(list)
        for (one, other), rates in self.links.items():
            if one not in leaf_of:
                up[(one, other) if one in leaves else (other, one)].extend(rates)
        devices = [{"name": nic, "kind": "nic", "host": nic.rpartition("/")[0]} for nic in nics]
        devices += [{"name": s, "kind": "switch", "tier": "leaf" if s in leaves else "spine"} for s in switches]
        ends = [((nic, leaf_of[nic]), "nic", self.links[nic, leaf_of[nic]]) for nic in nics if nic in leaf_of]
        ends += [
            (pair, "leaf-spine", rates)
            for pair, rates in sorted(up.items(), key=lambda item: _natural("/".join(item[0])))
        ]
        imported = Imported(
            {
                "format": "ibnetdiscover",
                "devices": devices,
                "links": [
                    {"source": a, "target": b, "class": cls, "count": len(rates), "GBps": sum(rates) / 1e9}
                    for (a, b), cls, rates in ends
                ],
                "not_network": list(dict.fromkeys(self.dropped)),
                "warnings": [],
            }
        )
        by_host: dict[str, list[str]] = defaultdict(list)
        for nic in nics:
            if nic in leaf_of:
                by_host[nic.rpartition("/")[0]].append(nic)
        if not by_host:
            imported.facts["moesim_note"] = "no HCA of a host is in the file"
            return imported
        self._degraded(imported, [nic for names in by_host.values() for nic in names], leaf_of)
        all_nics = TwoTiers(
            {(n, i): leaf_of[nic] for n, own in enumerate(by_host.values()) for i, nic in enumerate(own)},
            {
                (n, i): sum(self.links[nic, leaf_of[nic]])
                for n, own in enumerate(by_host.values())
                for i, nic in enumerate(own)
            },
            {pair: sum(rates) for pair, rates in up.items()},
        )
        kind, _ = all_nics.shape()
        if kind:
            on = "mlx5_r of every host on leaf r" if kind == "rail" else "all HCAs of a host on one leaf"
            twice = "every link is in the file twice, once from each end: count it once"
            spines = len({spine for _, spine in all_nics.up})
            imported.facts["shape"] = f"{kind}: {on}, {spines} spines; {twice}"
        imported.facts["oversubscription"] = {leaf: round(r, 6) for leaf, r in all_nics.oversubscription().items()}
        self._topology(imported, answers, host, by_host, leaf_of, {pair: sum(rates) for pair, rates in up.items()})
        return imported

    def _degraded(self, imported: Imported, nics: list[str], leaf_of: dict[str, str]) -> None:
        rates = Counter(self.speed[nic, leaf_of[nic]] for nic in nics)
        usual, count = rates.most_common(1)[0]
        for nic in nics:
            pair = nic, leaf_of[nic]
            if self.speed[pair] != usual and count > len(nics) / 2:
                rate = sum(self.links[pair]) * 8e-9
                name = nic.replace("/", " ")
                words = {1: "one neighbour", 2: "two neighbours", 3: "three neighbours", 7: "seven neighbours"}
                others = words.get(count, f"{count} neighbours")
                imported.warn(
                    f"{name} runs at {self.speed[pair]} ({rate:g} Gb/s), its {others} at {usual}: degraded link"
                )

    def _topology(
        self,
        imported: Imported,
        answers: Answers,
        host: Host | None,
        by_host: dict[str, list[str]],
        leaf_of: dict[str, str],
        up: dict[tuple[str, str], float],
    ) -> None:
        order = _gpu_nics(imported, answers, host, by_host)
        gpu = answers.gpu or (host.gpu if host is not None else "")
        if not gpu:
            imported.ask("--gpu", "the GPU's model, such as h100")
        counts = set(host.switch_links.values()) if host is not None else set()
        if counts and host is not None and host.link_rate and answers.nvlink is None:
            nvlink: float | None = max(counts) * host.link_rate
            imported.sources["nvlink"] = "from the file of the host"
        else:
            nvlink = nvlink_rate(imported, answers, max(counts) if counts else None)
        if imported.asked or order is None or nvlink is None:
            return
        imported.sources |= dict.fromkeys(("nic", "leaf_spine", "links"), "from the file")
        imported.sources["gpu"] = "from --gpu" if answers.gpu else "assumed: the likeliest that fits the file"
        place = {(n, i): f"{name}/{hca}" for n, name in enumerate(by_host) for i, hca in enumerate(order)}
        tiers = TwoTiers(
            {at: leaf_of[nic] for at, nic in place.items()},
            {at: sum(self.links[nic, leaf_of[nic]]) for at, nic in place.items()},
            up,
        )
        kind, per_leaf = tiers.shape()
        usual = Counter(tiers.nic.values()).most_common(1)[0][0]
        slow = {at: rate for at, rate in tiers.nic.items() if rate != usual}
        if kind and (not slow or len(slow) < len(tiers.nic) / 2):
            spec: Facts = {"kind": kind, "gpu": gpu, "nodes": len(by_host), "gpus_per_node": len(order)}
            spec |= {"nvlink": {"bandwidth": gbps(nvlink)}, "nic": {"bandwidth": network_gbps(usual)}}
            spec |= {"nodes_per_leaf": per_leaf} if kind == "leaf-spine" else {}
            spec["leaf_spine"] = {"spines": len({spine for _, spine in up}) or 1}
            spec["leaf_spine"] |= {"uplink_bandwidth": gbps(next(iter(up.values())))} if up else {}
            imported.spec = spec | {"routing": "hash"}
            if slow:
                shown = ", ".join(
                    f"{{where: n{n}.gpu{i}.nic, bandwidth: {network_gbps(rate)}}}"
                    for (n, i), rate in list(slow.items())[:8]
                )
                imported.facts["moesim_note"] = (
                    f"kind {kind} has links alike; the degraded link: in a scenario, cluster: {{overrides: [{shown}]}}"
                )
        elif len(place) > MAX_GPUS:
            imported.facts["moesim_note"] = (
                f"no regular kind holds it, and more than {MAX_GPUS:,} GPUs cannot be listed"
            )
        else:
            imported.spec = _explicit(gpu, nvlink, tiers, len(by_host))
            imported.facts["moesim_note"] = "no regular kind holds it: listed link by link"


def _gpu_nics(
    imported: Imported, answers: Answers, host: Host | None, by_host: dict[str, list[str]]
) -> list[str] | None:
    """HCA of each GPU of a node, in the order of the GPUs."""
    common = [name.rpartition("/")[2] for name in next(iter(by_host.values()))]
    unlike = next((name for name, own in by_host.items() if [nic.rpartition("/")[2] for nic in own] != common), "")
    order: list[str] = list(answers.nic_map)
    if not order and host is not None:
        taken = [host.nic_of_gpu.get(gpu) or [] for gpu in host.gpus]
        order = [nics[0] for nics in taken if nics]
        if len(order) < len(taken) or len(set(order)) < len(order) or any(len(nics) > 1 for nics in taken):
            imported.ask(
                "--nic-map", "one HCA for each GPU of a node; GPUs that share one are not joined with a fabric"
            )
            return None
    if not order:
        if answers.gpus_per_node is None:
            imported.ask("--gpus-per-node", "GPUs of a host; GPU i is on the i-th of its HCAs, else add --nic-map")
            return None
        order = common
    if answers.gpus_per_node not in (None, len(order)):
        imported.ask("--nic-map", f"one HCA for each of {answers.gpus_per_node} GPUs, of {', '.join(common[:12])}")
        return None
    lacking = [f"{name}/{hca}" for name, own in by_host.items() for hca in order if f"{name}/{hca}" not in own]
    if lacking:
        imported.ask("--nic-map", f"HCAs that every host has: {lacking[0].replace('/', ' has no ')}")
        return None
    if unlike:
        imported.warn(f"{unlike} has other HCAs than the first host")
    imported.sources["nic_of_gpu"] = (
        "from --nic-map" if answers.nic_map else "by the host's file" if host else "assumed"
    )
    return order


def _explicit(gpu: str, nvlink: float, tiers: TwoTiers, nodes: int) -> Facts:
    devices: list[Facts] = [{"name": f"n{n}.nvswitch", "type": "switch", "node": n} for n in range(nodes)]
    links: list[Facts] = []
    names = {at: re.sub(r"[^A-Za-z0-9_.-]", ".", at)[:48] for at in [*tiers.leaf.values(), *(s for _, s in tiers.up)]}
    for (n, i), leaf in tiers.leaf.items():
        name = f"n{n}.gpu{i}"
        devices.append({"name": name, "type": "gpu", "node": n})
        links.append(
            {
                "source": name,
                "target": f"n{n}.nvswitch",
                "bandwidth": gbps(nvlink),
                "latency": "3.33us",
                "class": "nvlink",
            }
        )
        rate = network_gbps(tiers.nic[n, i])
        links.append({"source": name, "target": names[leaf], "bandwidth": rate, "latency": "2.8us", "class": "nic"})
    devices += [{"name": name, "type": "switch"} for name in names.values()]
    for (leaf, spine), rate_up in tiers.up.items():
        ends = {"source": names[leaf], "target": names[spine], "bandwidth": gbps(rate_up)}
        links.append(ends | {"latency": "0.9us", "class": "leaf-spine"})
    return {"kind": "explicit", "gpu": gpu, "nodes": devices, "links": links}


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts mlx5_10 after mlx5_2."""
    return [(int(part), "") if part.isdecimal() and len(part) < 12 else (-1, part) for part in re.split(r"(\d+)", name)]
