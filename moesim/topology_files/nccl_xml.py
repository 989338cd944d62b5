"""NCCL's topology XML: the PCI tree of a host, GPUs with their NVLinks, NICs with their rates.

A *dump* (``NCCL_TOPO_DUMP_FILE``) has ``gpu`` and ``nic`` elements; a *skeleton*, as cloud images ship it, has
the PCI tree alone, where a device's kind is in its class. moesim takes peak rates; NCCL's own stand beside them.
"""

import itertools
import re
from xml.etree.ElementTree import Element

from moesim.errors import InputError
from moesim.topology_files.file_text import MAX_DEVICES, number, parse_xml
from moesim.topology_files.host import NEAR, Host, pair_nics
from moesim.topology_files.imported import Answers, Facts, Imported
from moesim.topology_files.link_rates import pcie_peak
from moesim.topology_files.listing import in_words

# NVLink by compute capability, from the newest: GB/s of one link, in NCCL's rates, and the GPUs by their links.
_SM: tuple[tuple[int, float, float, dict[int, tuple[str, ...]]], ...] = (
    (120, 0, 0, {0: ("rtxpro6000", "rtx5090")}),
    (103, 50, 40.1, {18: ("b300", "gb300")}),
    (100, 50, 40.1, {18: ("b200", "gb200")}),
    (90, 25, 20.6, {18: ("h100", "h200", "h20"), 8: ("h800",), 0: ("h100",)}),
    (89, 0, 0, {0: ("l40s", "l40", "l20", "rtx4090")}),
    (86, 14.0625, 12, {4: ("a40", "a6000"), 0: ("a10", "a40")}),
    (80, 25, 20, {12: ("a100",), 8: ("a800",), 0: ("a100",)}),
    (70, 25, 20, {6: ("v100",), 0: ("v100",)}),
    (60, 20, 18, {4: ("p100",)}),
)
_NCCL_PCIE = {2.5: 15, 5.0: 30, 8.0: 60, 16.0: 120, 32.0: 240, 64.0: 480}
_BROADCOM = ("0xc010", "0xc030")
_ARM = ("arm64", "aarch64")


def read_nccl_xml(text: str, where: str, answers: Answers) -> tuple[Imported, Host]:
    """Return the facts and the host of a topology file of NCCL.

    Raises:
        InputError: not XML, cut off, no GPU.
    """
    tree = _Tree(parse_xml(text, "system", where))
    if not tree.gpus:
        raise InputError("there is no GPU in the file", where, "give a dump (NCCL_TOPO_DUMP_FILE) or a whole tree")
    if len(tree.gpus) * max(len(tree.nics), 1) > MAX_DEVICES:
        raise InputError(f"{len(tree.gpus)} GPUs and {len(tree.nics)} NICs in one file", where, "give one host")
    return tree.imported, tree.read(answers)


class _Tree:
    """The devices of one file, and where in the PCI tree each hangs."""

    def __init__(self, system: Element) -> None:
        self.inside = {child: at for at in system.iter() for child in at}
        self.dump = next(system.iter("gpu"), None) is not None
        self.cpus = list(system.iter("cpu"))
        self.hosts = list(dict.fromkeys(cpu.get("host_hash") for cpu in self.cpus))
        dumped = "dump of one host" if len(self.hosts) < 2 else f"dump of {len(self.hosts)} hosts"
        form = dumped if self.dump else "skeleton (no gpu, no nic element: the kind of a device is in class)"
        self.imported = Imported({"format": "NCCL topology XML", "form": form})
        self.names: dict[Element, str] = {cpu: f"cpu{i}" for i, cpu in enumerate(self.cpus)}
        self.gpus: dict[str, Element] = {}
        self.nics: dict[str, Element] = {}
        self.bridges: list[Element] = []
        for pci in system.iter("pci"):
            kind = pci.get("class", "").lower().removeprefix("0x")
            if not self.dump and kind[:2] in ("02", "03"):
                own, name = (self.gpus, "gpu") if kind[:2] == "03" else (self.nics, "nic")
                own[f"{name}{len(own)}"] = pci
            elif pci.find("gpu") is None and pci.find("nic") is None and not kind.startswith("0680"):
                self.names[pci] = f"pci{len(self.bridges)}"
                self.bridges.append(pci)
        several = len(self.hosts) > 1
        for gpu in system.iter("gpu"):
            self._add(self.gpus, f"gpu{int(number(gpu, 'rank' if several else 'dev', len(self.gpus)))}", gpu)
        for net in sorted(system.iter("net"), key=lambda net: (self._host(net), number(net, "dev"))):
            name = net.get("name") or f"net{len(self.nics)}"
            self._add(self.nics, f"host{self._host(net)}/{name}" if several else name, net)

    def _add(self, devices: dict[str, Element], name: str, element: Element) -> None:
        devices[name if name not in devices else f"{name}.{len(devices)}"] = element

    def _host(self, element: Element) -> int:
        cpu = self.cpu(element)
        return 0 if cpu is None else self.hosts.index(cpu.get("host_hash"))

    def cpu(self, element: Element) -> Element | None:
        """The CPU that a device is behind."""
        return next((at for at in self.above(element) if at.tag == "cpu"), None)

    def card(self, element: Element) -> Element | None:
        """The PCI device that a GPU or NIC is."""
        while element.tag != "pci" and element in self.inside:
            element = self.inside[element]
        return element if element.tag == "pci" else None

    def above(self, element: Element) -> list[Element]:
        """What a device hangs on, from near to far: bridges, then the CPU."""
        card = self.card(element)
        at, path = element if card is None else card, list[Element]()
        while (at := self.inside.get(at)) is not None and at in self.inside:  # type: ignore[assignment]
            path.append(at)
        return path

    def distance(self, gpu: Element, nic: Element) -> str:
        """How a GPU reaches a NIC, in the words of nvidia-smi; a bridge inside its own Broadcom switch is none."""
        one, other = self.above(gpu), self.above(nic)
        common = next((at for at in one if at in other), None)
        if common is None:
            return "SYS"
        if common.tag != "pci":
            return "PHB"
        way = [*one[: one.index(common)], common, *other[: other.index(common)]]
        chip = [at for at in way if at.get("vendor") == "0x1000" and at.get("device", "").lower() in _BROADCOM]
        return "PIX" if len(way) - sum(self.inside[at] in chip for at in chip) == 1 else "PXB"

    def read(self, answers: Answers) -> Host:
        """Fill the facts; return the host."""
        far = {gpu: {nic: self.distance(g, n) for nic, n in self.nics.items()} for gpu, g in self.gpus.items()}
        host = Host(list(self.gpus), list(self.nics), far, nvlink_unknown=not self.dump)
        chips = self._nvlinks(host)
        self._devices(host, chips)
        pair_nics(host, self.imported, answers)
        self._pcie_links(host)
        self._say(host, answers)
        return host

    def _nvlinks(self, host: Host) -> int:
        """Fill the NVLinks; return how many switch chips they lead to."""
        cards = {gpu: self.card(at) for gpu, at in self.gpus.items()}
        by_bus = {card.get("busid", "").lower(): gpu for gpu, card in cards.items() if card is not None}
        chips, own = set[str](), list[str]()
        for gpu, element in self.gpus.items():
            for link in element.iter("nvlink"):
                count, target = int(min(number(link, "count"), 1000)), link.get("target", "").strip().lower()
                other = by_bus.get(target)
                if other == gpu:
                    own.append(gpu)
                elif other is not None:
                    first, second = sorted((gpu, other), key=host.gpus.index)
                    host.pairs[first, second] = max(host.pairs.get((first, second), 0), count)
                elif not link.get("tclass", "").lower().startswith("0x03"):
                    chips.add(target)
                    host.switch_links[gpu] = host.switch_links.get(gpu, 0) + count
        if own:
            self.imported.warn(f"NVLinks of {', '.join(own)} lead to the GPU itself: left out")
        sm = min(number(element, "sm") for element in self.gpus.values())
        row = next((row for row in _SM if self.dump and sm >= row[0]), None)
        host.link_rate = row[1] * 1e9 or None if row is not None else None
        for (gpu, end), count in host.nvlinks.items():
            rates = {} if row is None else {"GBps": count * row[1], "nccl_GBps": round(count * row[2], 3)}
            self.imported.link(gpu, end, "nvlink", count=count, **rates)
        joined = {end for pair in host.nvlinks for end in pair}
        lone = [gpu for gpu in self.gpus if joined and gpu not in joined]
        if lone:
            self.imported.warn(f"{', '.join(lone)} without NVLink among GPUs that have some: a broken record?")
        return len(chips)

    def _devices(self, host: Host, chips: int) -> None:
        for gpu, element in self.gpus.items():
            cpu = self.cpu(element)
            ids = {"rank": int(number(element, "rank", -1)), "sm": int(number(element, "sm"))}
            about: Facts = ids if self.dump else {"busid": element.get("busid")}
            self.imported.device(gpu, "gpu", **about, numa=None if cpu is None else cpu.get("numaid"))
        if host.switch_links:
            note = "one chip" if chips == 1 else f"{in_words(chips)} chips, drawn as one"
            self.imported.device("nvswitch", "switch", note=note)
        for nic, element in self.nics.items():
            if self.dump:
                speed = number(element, "speed")
                host.nic_rate[nic] = (speed if speed > 0 else 10_000) / 8 * 1e6
            about = {"GBps": host.nic_rate[nic] / 1e9} if self.dump else {"busid": element.get("busid")}
            self.imported.device(nic, "nic", **about)

    def _pcie_links(self, host: Host) -> None:
        """Links towards the CPU: of devices all, of bridges those that are on a way."""
        no_nvlink = not host.switch_links and not host.pairs
        ways = set[Element]()
        for gpu, element in self.gpus.items():
            own, cpu = self.above(element), self.cpu(element)
            host.bridge[gpu] = "host" if cpu is None else self.names[cpu]
            for nic in host.nic_of_gpu.get(gpu) or ():
                other = self.above(self.nics[nic])
                near = host.distance[gpu][nic] in NEAR
                ways |= {at for at in (*own, *other) if not (near and at in own and at in other)}
            ways |= set(own) if no_nvlink else set()
            self._link(host, [gpu], element)
        cards: dict[Element, list[str]] = {}
        for nic, element in self.nics.items():
            card = self.card(element)
            cards.setdefault(element if card is None else card, []).append(nic)
        for nics in cards.values():
            self._link(host, nics, self.nics[nics[0]])
        for bridge in self.bridges:
            if bridge in ways:
                self._link(host, [self.names[bridge]], bridge)
        if no_nvlink or not self.dump:
            for bridge in self.bridges:
                self.imported.device(self.names[bridge], "switch", busid=bridge.get("busid"))
            for cpu_at in self.cpus:
                self.imported.device(self.names[cpu_at], "switch")
            for one, peer in itertools.combinations(self.cpus[:16], 2):
                self.imported.link(self.names[one], self.names[peer], "smp", GBps=None, nccl_GBps=_nccl_smp(one))

    def _link(self, host: Host, names: list[str], element: Element) -> None:
        card = self.card(element)
        parent = next((self.names[at] for at in self.above(element) if at in self.names), None)
        if card is None or parent is None:
            return
        found = re.match(r"\s*([0-9]+(?:\.[0-9]+)?)\s*GT/s", card.get("link_speed", ""))
        speed = float(found[1]) if found else 8.0
        lanes = int(min(number(card, "link_width"), 32)) or 16
        rate = pcie_peak(speed, lanes)
        host.pcie.update(dict.fromkeys(names, rate))
        about: Facts = {"GBps": round(rate / 1e9, 4), "nccl_GBps": lanes * _NCCL_PCIE.get(speed, 60) / 80}
        if len(names) > 1:
            ports = in_words(len(names))
            if names[0] in host.nic_rate:
                each = host.nic_rate[names[0]] / 1e9
                about["note"] = f"{ports} ports of {each:g} GB/s behind one card of {rate / 1e9:.4g}"
            for device in self.imported.facts["devices"]:
                if device["name"] in names:
                    device["card"] = card.get("busid", "").removeprefix("0000:")
            joined = " and ".join(names)
            self.imported.warn(f"{joined} are {ports} ports of one card: together no more than its PCIe link")
        self.imported.link("+".join(names), parent, "pcie", **about)

    def _say(self, host: Host, answers: Answers) -> None:
        facts, imported = self.imported.facts, self.imported
        paired = {host.distance[gpu][nic] for gpu, nics in host.nic_of_gpu.items() for nic in nics or ()}
        if len(paired) == 1:
            facts["distance"] = paired.pop()
        if not self.dump:
            del facts["not_compute"]
            facts["not_in_file"] = ["gpu model (sm)", "NVLink", "NIC names and rates", "ranks"]
            if any(at.get("busid", "").lower().startswith("ffff:ff") for at in self.bridges):
                imported.warn("bus ids ffff:ff:xx.x do not exist on the machine: synthetic switches")
            imported.warn("no NVLink in the file does not mean none: NCCL adds it at run time")
            return
        for device in facts["devices"]:
            if device["kind"] == "nic":
                unknown = host.nic_of_gpu.get(host.gpus[0]) is None
                device["compute"] = None if unknown else device["name"] not in facts["not_compute"]
        for nic, element in self.nics.items():
            if self.card(element) is None:
                speed = element.get("speed")
                imported.warn(f"{nic} hangs on no PCI device and says {speed}, NCCL's default: rate unknown")
            if "+" in element.get("name", ""):
                imported.warn(f"{nic} is several ports that NCCL merged: its rate is of all of them")
        links = max(host.switch_links.values(), default=0)
        sm = int(number(next(iter(self.gpus.values())), "sm"))
        fits = next((row[3].get(links, ()) for row in _SM if sm >= row[0]), ())
        arm = bool(self.cpus) and self.cpus[0].get("arch") in _ARM
        if arm:  # of two models the one with Grace
            fits = tuple(name for name in fits if name.startswith("g")) or fits
        if fits and not answers.gpu:
            host.gpu = fits[0]
            shown = " and ".join(filter(None, [", ".join(name.upper() for name in fits[:-1]), fits[-1].upper()]))
            imported.warn(f"gpu model not in file: sm {sm} and {links} NVLinks fit {shown}")
        if arm and links and len(self.hosts) < 2 and len(host.gpus) <= 4 and answers.nvlink_domain is None:
            imported.ask("--nvlink-domain", "GPUs that NVLink joins, such as 72: the file may show one tray of a rack")


def compute_capability(gpu: str) -> int | None:
    """The compute capability of a GPU as NCCL writes it, 90 for h100; None where it is not known."""
    return next((row[0] for row in _SM for names in row[3].values() if gpu in names), None)


def _nccl_smp(cpu: Element) -> float:
    """NCCL's rate between two CPUs, GB/s."""
    if cpu.get("arch") in _ARM:
        return 6.0
    if cpu.get("vendor") == "AuthenticAMD":
        return 16.0
    model = number(cpu, "modelid")
    return next((rate for least, rate in ((0xCF, 40.0), (0x8F, 22.0), (0x55, 10.0)) if model >= least), 6.0)
