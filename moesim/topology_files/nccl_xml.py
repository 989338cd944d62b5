"""NCCL's topology XML: the PCI tree of a host, GPUs with their NVLinks, NICs with their rates.

A *dump* (``NCCL_TOPO_DUMP_FILE``) has ``gpu`` and ``nic`` elements; a *skeleton*, as cloud images ship it, has
the PCI tree alone, where a device's kind is in its class. moesim takes peak rates; NCCL's own stand beside them.
"""

import re

from moesim.errors import InputError
from moesim.topology_files.file_text import MAX_DEVICES
from moesim.topology_files.host import NEAR, Host, pair_nics
from moesim.topology_files.imported import Answers, Facts, Imported, pcie_peak
from moesim.topology_files.xml_tree import Element, parse_xml

# NVLink by compute capability, from the newest: GB/s of one link, in NCCL's rates, and the GPUs by their links.
_SM: tuple[tuple[int, float, float, dict[int, tuple[str, ...]]], ...] = (
    (103, 50, 40.1, {18: ("b300", "gb300")}),
    (100, 50, 40.1, {18: ("b200", "gb200")}),
    (90, 25, 20.6, {18: ("h100", "h200", "h20"), 8: ("h800",), 0: ("h100",)}),
    (86, 14.0625, 12, {4: ("a40", "a6000"), 0: ("a10", "a40")}),
    (80, 25, 20, {12: ("a100",), 8: ("a800",), 0: ("a100",)}),
    (70, 25, 20, {6: ("v100",), 0: ("v100",)}),
    (60, 20, 18, {4: ("p100",)}),
)
_NCCL_PCIE = {2.5: 15, 5.0: 30, 8.0: 60, 16.0: 120, 32.0: 240, 64.0: 480}
_BROADCOM = ("0xc010", "0xc030")


def read_nccl_xml(text: str, where: str, answers: Answers) -> tuple[Imported, Host]:
    """Return the facts and the host of a topology file of NCCL.

    Raises:
        InputError: not XML, cut off, no GPU.
    """
    system = parse_xml(text, "system", where)
    dump = any(True for _ in system.below("gpu"))
    hosts = len({cpu.get("host_hash") for cpu in system.below("cpu")})
    dumped = "dump of one host" if hosts < 2 else f"dump of {hosts} hosts"
    form = dumped if dump else "skeleton (no gpu, no nic element: the kind of a device is in class)"
    facts: Facts = {"format": "NCCL topology XML", "form": form, "devices": [], "links": [], "warnings": []}
    tree = _Tree(system, Imported(facts), dump)
    if not tree.gpus:
        raise InputError("there is no GPU in the file", where, "give a dump (NCCL_TOPO_DUMP_FILE) or a whole tree")
    if len(tree.gpus) * max(len(tree.nics), 1) > MAX_DEVICES:
        raise InputError(f"{len(tree.gpus)} GPUs and {len(tree.nics)} NICs in one file", where, "give one host")
    return tree.imported, tree.read(answers)


class _Tree:
    """The devices of one file, and where in the PCI tree each hangs."""

    def __init__(self, system: Element, imported: Imported, dump: bool) -> None:
        self.imported, self.dump = imported, dump
        self.cpus = list(system.below("cpu"))
        self.hosts = list(dict.fromkeys(cpu.get("host_hash") for cpu in self.cpus))
        self.several = len(self.hosts) > 1
        self.names: dict[int, str] = {id(cpu): f"cpu{i}" for i, cpu in enumerate(self.cpus)}
        self.gpus: dict[str, Element] = {}
        self.nics: dict[str, Element] = {}
        self.bridges: list[Element] = []
        self._name(system)

    def _name(self, system: Element) -> None:
        for pci in system.below("pci"):
            kind = pci.get("class").lower().removeprefix("0x")
            inner = {child.tag for child in pci.children}
            if not self.dump and kind.startswith("03"):
                self._add(self.gpus, f"gpu{len(self.gpus)}", pci)
            elif not self.dump and kind.startswith("02"):
                self._add(self.nics, f"nic{len(self.nics)}", pci)
            elif not inner & {"gpu", "nic"} and not kind.startswith("0680"):
                self.names[id(pci)] = f"pci{len(self.bridges)}"
                self.bridges.append(pci)
        for gpu in system.below("gpu"):
            self._add(self.gpus, f"gpu{int(gpu.number('rank' if self.several else 'dev', len(self.gpus)))}", gpu)
        for net in sorted(system.below("net"), key=lambda net: (self._host(net), net.number("dev"))):
            name = net.get("name") or f"net{len(self.nics)}"
            self._add(self.nics, f"host{self._host(net)}/{name}" if self.several else name, net)

    def _add(self, devices: dict[str, Element], name: str, element: Element) -> None:
        devices[name if name not in devices else f"{name}.{len(devices)}"] = element

    def _host(self, element: Element) -> int:
        return next((self.hosts.index(at.get("host_hash")) for at in element.within() if at.tag == "cpu"), 0)

    def _cpu(self, element: Element) -> str:
        return next((self.names[id(at)] for at in element.within() if at.tag == "cpu"), "")

    def card(self, element: Element) -> Element | None:
        """The PCI device that a GPU or NIC is."""
        return next((at for at in [element, *element.within()] if at.tag == "pci"), None)

    def above(self, element: Element) -> list[Element]:
        """What a device hangs on, from near to far: bridges, then the CPU."""
        card = self.card(element)
        return (element if card is None else card).within()

    def distance(self, gpu: Element, nic: Element) -> str:
        """How a GPU reaches a NIC, in the words of nvidia-smi."""
        one, other = self.above(gpu), self.above(nic)
        common = next((at for at in one if any(at is each for each in other)), None)
        if common is None:
            return "SYS"
        if common.tag != "pci":
            return "PHB"
        way = [*one[: one.index(common)], common, *other[: other.index(common)]]
        return "PIX" if len(way) - self._doubled(way) == 1 else "PXB"

    def _doubled(self, way: list[Element]) -> int:
        """Bridges of the way that are one Broadcom switch with the bridge that they hang on."""
        own = [at for at in way if at.get("vendor") == "0x1000" and at.get("device").lower() in _BROADCOM]
        return sum(any(at.inside is other for other in own) for at in own)

    def read(self, answers: Answers) -> Host:
        """Fill the facts; return the host."""
        host = Host(
            gpus=list(self.gpus),
            nics=list(self.nics),
            nvlink_unknown=not self.dump,
            distance={gpu: {nic: self.distance(g, n) for nic, n in self.nics.items()} for gpu, g in self.gpus.items()},
        )
        self._nvlinks(host)
        self._devices(host, answers)
        pair_nics(host, self.imported, answers)
        self._pcie_links(host)
        self._say(host, answers)
        return host

    def _nvlinks(self, host: Host) -> None:
        by_bus = {
            card.get("busid").lower(): gpu for gpu, at in self.gpus.items() if (card := self.card(at)) is not None
        }
        chips, own = set[str](), list[str]()
        for gpu, element in self.gpus.items():
            for link in element.below("nvlink"):
                count, target = int(min(link.number("count"), 1000)), link.get("target").lower()
                if link.get("tclass").lower().startswith("0x03") or target in by_bus:
                    other = by_bus.get(target)
                    if other == gpu:
                        own.append(gpu)
                    elif other is not None:
                        first, second = sorted((gpu, other), key=host.gpus.index)
                        host.pairs[first, second] = max(host.pairs.get((first, second), 0), count)
                else:
                    chips.add(target)
                    host.switch_links[gpu] = host.switch_links.get(gpu, 0) + count
        if own:
            self.imported.warn(f"NVLinks of {', '.join(own)} lead to the GPU itself: left out")
        sms = {int(element.number("sm")) for element in self.gpus.values()}
        row = next((row for row in _SM if sms and min(sms) >= row[0]), None)
        links: list[Facts] = self.imported.facts["links"]
        if row is not None:
            host.link_rate = row[1] * 1e9
        ends = {(gpu, "nvswitch"): count for gpu, count in host.switch_links.items()} | host.pairs
        for (gpu, end), count in ends.items():
            rates = {} if row is None else {"GBps": count * row[1], "nccl_GBps": round(count * row[2], 3)}
            links.append({"source": gpu, "target": end, "class": "nvlink", "count": count} | rates)
        lone = [gpu for gpu in self.gpus if ends and not any(gpu in pair for pair in ends)]
        if lone and self.dump:
            self.imported.warn(f"{', '.join(lone)} without NVLink among GPUs that have some: a broken record?")
        self.chips = len(chips)

    def _devices(self, host: Host, answers: Answers) -> None:
        devices: list[Facts] = self.imported.facts["devices"]
        for gpu, element in self.gpus.items():
            cpu = next((at for at in element.within() if at.tag == "cpu"), None)
            about: Facts = {"name": gpu, "kind": "gpu"}
            if self.dump:
                about |= {"rank": int(element.number("rank", -1)), "sm": int(element.number("sm"))}
            else:
                about["busid"] = element.get("busid")
            devices.append(about | {"numa": None if cpu is None else cpu.get("numaid")})
        if host.switch_links:
            words = {
                1: "one chip",
                2: "two chips, drawn as one",
                4: "four chips, drawn as one",
                6: "six chips, drawn as one",
            }
            note = words.get(self.chips, f"{self.chips} chips, drawn as one")
            devices.append({"name": "nvswitch", "kind": "switch", "note": note})
        for nic, element in self.nics.items():
            if not self.dump:
                devices.append({"name": nic, "kind": "nic", "busid": element.get("busid")})
                continue
            speed = element.number("speed")
            host.nic_rate[nic] = (speed if speed > 0 else 10_000) / 8 * 1e6
            devices.append({"name": nic, "kind": "nic", "GBps": host.nic_rate[nic] / 1e9})

    def _pcie_links(self, host: Host) -> None:
        """Links towards the CPU: of devices all, of bridges those that are on a way."""
        links: list[Facts] = self.imported.facts["links"]
        no_nvlink = not host.switch_links and not host.pairs
        ways: set[int] = set()
        for gpu, element in self.gpus.items():
            own = self.above(element)
            for nic in host.nic_of_gpu.get(gpu) or ():
                other = self.above(self.nics[nic])
                apart = host.distance[gpu][nic] not in NEAR
                ways |= {id(at) for way in (own, other) for at in way if apart or not (at in own and at in other)}
            if no_nvlink:
                ways |= {id(at) for at in own}
        cards: dict[int, list[str]] = {}
        for nic, element in self.nics.items():
            card = self.card(element)
            cards.setdefault(id(element if card is None else card), []).append(nic)
        for gpu, element in self.gpus.items():
            host.bridge[gpu] = self._cpu(element) or "host"
            self._link(host, [gpu], element, links)
        for nics in cards.values():
            self._link(host, nics, self.nics[nics[0]], links)
        for bridge in self.bridges:
            if id(bridge) in ways:
                self._link(host, [self.names[id(bridge)]], bridge, links)
        if no_nvlink or not self.dump:
            devices: list[Facts] = self.imported.facts["devices"]
            for at in self.bridges:
                devices.append({"name": self.names[id(at)], "kind": "switch", "busid": at.get("busid")})
            devices.extend({"name": self.names[id(each)], "kind": "switch"} for each in self.cpus)
            for i, cpu in enumerate(self.cpus[:16]):
                for peer in self.cpus[i + 1 : 16]:
                    ends = {"source": self.names[id(cpu)], "target": self.names[id(peer)]}
                    links.append(ends | {"class": "smp", "GBps": None, "nccl_GBps": _nccl_smp(cpu)})

    def _link(self, host: Host, names: list[str], element: Element, links: list[Facts]) -> None:
        card, above = self.card(element), self.above(element)
        parent = next((self.names[id(at)] for at in above if id(at) in self.names), None)
        if card is None or parent is None:
            return
        found = re.match(r"\s*(\d+(?:\.\d+)?)\s*GT/s", card.get("link_speed"))
        speed = float(found[1]) if found else 8.0
        lanes = int(min(card.number("link_width"), 32)) or 16
        rate = pcie_peak(speed, lanes)
        host.pcie.update(dict.fromkeys(names, rate))
        link: Facts = {"source": "+".join(names), "target": parent, "class": "pcie", "GBps": round(rate / 1e9, 4)}
        link["nccl_GBps"] = lanes * _NCCL_PCIE.get(speed, 60) / 80
        ports = [host.nic_rate[name] for name in names if name in host.nic_rate]
        if len(names) > 1 and ports:
            number = {2: "two", 4: "four"}.get(len(names), str(len(names)))
            link["note"] = f"{number} ports of {ports[0] / 1e9:g} GB/s behind one card of {rate / 1e9:.4g}"
        links.append(link)
        if len(names) > 1:
            for device in self.imported.facts["devices"]:
                if device["name"] in names:
                    device["card"] = card.get("busid").removeprefix("0000:")
            number = {2: "two", 4: "four"}.get(len(names), str(len(names)))
            self.imported.warn(
                f"{' and '.join(names)} are {number} ports of one card: together no more than its PCIe link"
            )

    def _say(self, host: Host, answers: Answers) -> None:
        facts, imported = self.imported.facts, self.imported
        for device in facts["devices"]:
            if device["kind"] == "nic" and self.dump:
                unknown = host.nic_of_gpu.get(host.gpus[0]) is None
                device["compute"] = None if unknown else device["name"] not in facts["not_compute"]
        paired = {host.distance[gpu][nic] for gpu, nics in host.nic_of_gpu.items() for nic in nics or ()}
        if len(paired) == 1:
            facts["distance"] = paired.pop()
        for nic, element in self.nics.items():
            if self.dump and self.card(element) is None:
                speed = element.get("speed")
                imported.warn(f"{nic} hangs on no PCI device and says {speed}, NCCL's default: rate unknown")
            if "+" in element.get("name"):
                imported.warn(f"{nic} is several ports that NCCL merged: its rate is of all of them")
        if not self.dump:
            del facts["not_compute"]
            facts["not_in_file"] = ["gpu model (sm)", "NVLink", "NIC names and rates", "ranks"]
            if any(at.get("busid").lower().startswith("ffff:ff") for at in self.bridges):
                imported.warn("bus ids ffff:ff:xx.x do not exist on the machine: synthetic switches")
            imported.warn("no NVLink in the file does not mean none: NCCL adds it at run time")
            return
        counts = set(host.switch_links.values()) or {0}
        sm = int(next(iter(self.gpus.values())).number("sm"))
        fits = next((row[3].get(max(counts), ()) for row in _SM if sm >= row[0]), ())
        if self.cpus and self.cpus[0].get("arch") in ("arm64", "aarch64"):  # of two models that with Grace
            fits = tuple(name for name in fits if name.startswith("g")) or fits
        if fits and not answers.gpu:
            host.gpu = fits[0]
            shown = " and ".join(filter(None, [", ".join(name.upper() for name in fits[:-1]), fits[-1].upper()]))
            imported.warn(f"gpu model not in file: sm {sm} and {max(counts)} NVLinks fit {shown}")


def compute_capability(gpu: str) -> int | None:
    """The compute capability of a GPU as NCCL writes it, 90 for h100; None where it is not known."""
    return next((row[0] for row in _SM for names in row[3].values() if gpu in names), None)


def _nccl_smp(cpu: Element) -> float:
    """NCCL's rate between two CPUs, GB/s."""
    if cpu.get("arch") == "arm64" or cpu.get("arch") == "aarch64":
        return 6.0
    if cpu.get("vendor") == "AuthenticAMD":
        return 16.0
    model = cpu.number("modelid")
    return next((rate for least, rate in ((0xCF, 40.0), (0x8F, 22.0), (0x55, 10.0)) if model >= least), 6.0)
