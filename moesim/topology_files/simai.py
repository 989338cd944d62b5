"""SimAI's topology text: a line of counts, a line of switch ids, then a line for each two-way cable.

GPU i is in node i // gpus_per_server. Delays are of one link: a route's are summed.
"""

import re

from moesim.errors import InputError
from moesim.topology_files.host_topology import MAX_GPUS
from moesim.topology_files.imported import Answers, Facts, Imported, gbps, network_gbps
from moesim.topology_files.two_tiers import TwoTiers
from moesim.units import exact_duration, parse_bandwidth, parse_duration

MAX_NODES = 100_000
_TEMPLATE_NVLINK = 360e9
Links = dict[tuple[int, int], tuple[float, float, int]]


def read_simai(text: str, where: str, answers: Answers) -> Imported:
    """Return the facts of a SimAI topology and the topology it is.

    Raises:
        InputError: counts that cannot be, a line that is no link, a link of a device that is not there.
    """
    lines = [(number, line.split()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if any(len(word) > 18 for word in lines[0][1]):
        raise InputError("counts that cannot be", f"{where}:{lines[0][0]}")
    total, per_server, nvswitches, switches, n_links = (int(word) for word in lines[0][1][:5])
    gpu_type = lines[0][1][5].lower()
    gpus = total - nvswitches - switches
    if total > MAX_NODES or gpus < 1 or per_server < 1 or gpus % per_server:
        what = (
            f"{total} devices, {nvswitches} NVSwitches and {switches} switches of them, are {gpus} GPUs of {per_server}"
        )
        raise InputError(what, f"{where}:{lines[0][0]}", "give counts that fit, at most 100,000 devices")
    own_line = len(lines) > 1 and len(lines[1][1]) == nvswitches + switches
    ids = [_id(word, total, f"{where}:{lines[1][0]}") for word in lines[1][1]] if own_line else list(range(gpus, total))
    body = lines[2 if own_line else 1 :]
    if len(body) != n_links:
        raise InputError(f"{len(body)} links, the first line says {n_links}", where, "is the file whole?")
    links: Links = {}
    for number, words in body:
        place = f"{where}:{number}"
        if len(words) < 4:
            raise InputError("is no link", place, "source target 400Gbps 0.0005ms 0")
        ends = _id(words[0], total, place), _id(words[1], total, place)
        try:
            rate = parse_bandwidth(re.sub(r"(?i)bps$", "b/s", words[2]))
            delay = parse_duration(words[3])
        except InputError as error:
            raise InputError(error.what, place, error.fix) from None
        before = links.get(ends, (0.0, 0.0, 0))
        links[ends] = before[0] + rate, max(delay, before[1]), before[2] + 1
    nvs = ids[:nvswitches]
    imported = Imported({"format": "SimAI topology", "devices": [], "links": [], "warnings": []})
    imported.facts["devices"] = [
        {"kind": "gpu", "count": gpus, "gpus_per_node": per_server},
        {"kind": "nvswitch", "ids": nvs},
        {"kind": "switch", "ids": ids[nvswitches:]},
    ]
    return _Layout(gpus, per_server, set(nvs), links, imported).read(gpu_type, answers)


class _Layout:
    """Which links are NVLink, NIC and leaf to spine."""

    def __init__(self, gpus: int, per_server: int, nvs: set[int], links: Links, imported: Imported) -> None:
        self.gpus, self.per_server, self.imported = gpus, per_server, imported
        self.links = {(min(ends), max(ends)): link for ends, link in links.items()}
        self.nvlink = {ends: link for ends, link in self.links.items() if ends[0] < gpus and ends[1] in nvs}
        self.nic = {ends: link for ends, link in self.links.items() if ends[0] < gpus and ends not in self.nvlink}
        leaves = {leaf for _, leaf in self.nic}
        rest = {ends: link for ends, link in self.links.items() if ends[0] >= gpus}
        self.up = {(a, b) if a in leaves else (b, a): link for (a, b), link in rest.items()}
        for link_class, of_class in (("nvlink", self.nvlink), ("nic", self.nic), ("leaf-spine", self.up)):
            kinds = dict.fromkeys((rate, delay) for rate, delay, _ in of_class.values())
            for rate, delay in list(kinds)[:64]:
                alike = [ends for ends, link in of_class.items() if link[:2] == (rate, delay)]
                imported.facts["links"].append(
                    {"source": _span([a for a, _ in alike], gpus), "target": _target(alike, gpus, per_server)}
                    | {"class": link_class, "count": sum(of_class[ends][2] for ends in alike)}
                    | {"GBps": rate / of_class[alike[0]][2] / 1e9, "latency_us": round(delay * 1e6, 9)}
                )

    def read(self, gpu_type: str, answers: Answers) -> Imported:
        imported, facts = self.imported, self.imported.facts
        if any(rate == _TEMPLATE_NVLINK for rate, _, _ in self.nvlink.values()):
            what = "2880Gbps of NVLink is what SimAI's template assumes for H100 (360 GB/s), not the 450 GB/s peak"
            imported.warn(what)
        nic_delay = max((delay for _, delay, _ in self.nic.values()), default=0.0)
        if self.nic:
            imported.warn(f"delays are per link: gpu to gpu under one leaf is {2e6 * nic_delay:g} us")
        tiers = TwoTiers(
            {(gpu // self.per_server, gpu % self.per_server): str(leaf) for gpu, leaf in self.nic},
            {(gpu // self.per_server, gpu % self.per_server): link[0] for (gpu, _), link in self.nic.items()},
            {(str(leaf), str(spine)): link[0] for (leaf, spine), link in self.up.items()},
        )
        ratios = {round(ratio, 6) for ratio in tiers.oversubscription().values()}
        nodes = self.gpus // self.per_server
        if len(ratios) == 1:
            leaf, spines = next(iter(tiers.up))[0], len({spine for _, spine in tiers.up})
            below = sum(at == leaf for at in tiers.leaf.values())
            nic, up = (next(iter(of.values())) / 1e9 for of in (tiers.nic, tiers.up))
            sums = f"{below} x {nic:g} / ({spines} x {up:g})"
            imported.warn(f"oversubscription of a leaf is {sums}: {ratios.pop():g} with {nodes} nodes")
        kind, per_leaf = tiers.shape() if len(tiers.leaf) == len(self.nic) == self.gpus else ("", 0)
        one_rate = all(len({link[:2] for link in of.values()}) <= 1 for of in (self.nvlink, self.nic, self.up))
        own_switch = len({(gpu // self.per_server, nvs) for gpu, nvs in self.nvlink}) == nodes
        own_switch = own_switch and len(self.nvlink) == self.gpus
        gpu = answers.gpu or gpu_type
        imported.sources |= dict.fromkeys(("nvlink", "nic", "leaf_spine", "links"), "from the file")
        imported.sources["gpu"] = "from --gpu" if answers.gpu else "from the file"
        if kind and one_rate and own_switch:
            (rate, delay, _), (port, _, _) = next(iter(self.nvlink.values())), next(iter(self.nic.values()))
            spec: Facts = {"kind": kind, "gpu": gpu, "nodes": nodes, "gpus_per_node": self.per_server}
            spec["nvlink"] = {"bandwidth": gbps(rate), "latency": _time(2 * delay)}
            spec["nic"] = {"bandwidth": network_gbps(port), "latency": _time(2 * nic_delay)}
            spec |= {"nodes_per_leaf": per_leaf} if kind == "leaf-spine" else {}
            above = next(iter(self.up.values()), None)
            spec["leaf_spine"] = {"spines": len({spine for _, spine in self.up}) or 1}
            if above is not None:
                spec["leaf_spine"] |= {"uplink_bandwidth": network_gbps(above[0]), "latency": _time(2 * above[1])}
            imported.spec = spec | {"routing": "hash"}
        elif self.gpus > MAX_GPUS:
            facts["moesim_note"] = f"no regular kind holds it, and more than {MAX_GPUS:,} GPUs cannot be listed"
        else:
            imported.spec = self._explicit(gpu)
            facts["moesim_note"] = "no regular kind holds it: listed link by link"
        return imported

    def _explicit(self, gpu: str) -> Facts:
        """Every device and link; the delay of both links of a way is on the sender's."""
        name = {i: f"gpu{i}" if i < self.gpus else f"switch{i}" for ends in self.links for i in ends}
        name |= {i: f"gpu{i}" for i in range(self.gpus)}
        node = {i: i // self.per_server for i in range(self.gpus)}
        node |= {nvs: node[at] for at, nvs in self.nvlink}
        devices = [
            {"name": name[i], "type": "gpu" if i < self.gpus else "switch"} | ({"node": node[i]} if i in node else {})
            for i in sorted(name)
        ]
        links: list[Facts] = []
        for ends, (rate, delay, _) in self.links.items():
            link_class = "nvlink" if ends in self.nvlink else "nic" if ends in self.nic else "leaf-spine"
            link: Facts = {"source": name[ends[0]], "target": name[ends[1]], "bandwidth": gbps(rate)}
            links.append(link | {"latency": _time(2 * delay), "class": link_class})
        return {"kind": "explicit", "gpu": gpu, "nodes": devices, "links": links}


def _time(seconds: float) -> str:
    return exact_duration(float(f"{seconds:.12g}"))


def _id(word: str, total: int, where: str) -> int:
    if not word.isdecimal() or len(word) > 9 or int(word) >= total:
        raise InputError(f"{word:.20} is no device of {total}", where, "ids count from 0")
    return int(word)


def _span(ids: list[int], gpus: int) -> str:
    if min(ids) == 0 and len(set(ids)) == gpus:
        return "gpu i"
    return f"{min(ids)}..{max(ids)}" if len(set(ids)) > 1 else str(ids[0])


def _target(ends: list[tuple[int, int]], gpus: int, per_server: int) -> str:
    ids = sorted({b for _, b in ends})
    first = ids[0]
    if len(ends) == gpus and all(b == first + a // per_server for a, b in ends):
        return f"{first} + i//{per_server}"
    if len(ends) == gpus and all(b == first + a % per_server for a, b in ends):
        return f"{first} + i%{per_server}"
    return ", ".join(map(str, ids[:8]))
