"""From one host to a topology: a regular kind where its GPUs are alike, else every device and link by name.

In an explicit topology a NIC is a switch that belongs to no node, so that no NVLink traffic goes over it. Where NVLink
does not join all GPUs of a host, each NVLink domain is a node, and host bridges join them.
"""

from moesim.topology_files.host import Host
from moesim.topology_files.imported import Answers, Facts, Imported, gbps, network_gbps, nvlink_rate

MAX_GPUS = 1_024


def host_topology(host: Host, imported: Imported, answers: Answers, n_files: int = 1) -> None:
    """Give ``imported`` the topology of hosts like this one, or the options that are missing."""
    nodes = answers.nodes or n_files
    gpu = answers.gpu or host.gpu
    if not gpu:
        imported.ask("--gpu", "the GPU's model, such as h100")
    imported.sources["gpu"] = "from --gpu" if answers.gpu else "assumed: the likeliest that fits the file"
    rate = _nvlink(host, imported, answers)
    nics = {nic for taken in host.nic_of_gpu.values() for nic in taken or ()}
    nic = answers.nic or next(
        (host.nic_rate[name] for name in host.nics if name in nics and name in host.nic_rate), None
    )
    if nics and nic is None:
        imported.ask("--nic", "the rate of a NIC, such as 400Gb/s")
    if nics:
        imported.sources["nic"] = "from --nic" if answers.nic else "from the file"
    if nodes > 1 and not nics:
        imported.ask("--nodes", "1: the file has no NIC")
    fabric = _fabric(imported, answers, nodes)
    each = _own_nics(host)
    alike = len(set(host.switch_links.values())) == 1 or (not host.switch_links and len(host.domains) == 1)
    mesh = bool(host.pairs) and len(host.gpus) > 2
    if imported.asked or (nic is None and nics):
        return
    if alike and not mesh and rate is not None and (each is not None or not nics):
        count = answers.nvlink_domain or len(host.gpus)
        spec: Facts = {"kind": "hgx", "gpu": gpu}
        if nodes > 1:
            spec |= {"kind": fabric, "nodes": nodes}
        spec |= {"gpus_per_node": count, "nvlink": {"bandwidth": gbps(rate)}}
        if nics:
            spec["nic"] = {"bandwidth": network_gbps(nic)} | ({"per_gpu": each} if each and each > 1 else {})
        imported.spec = spec | (_leaves(imported, answers, fabric, nodes) if nodes > 1 else {})
        return
    if len(host.gpus) * nodes > MAX_GPUS:
        imported.facts["moesim_note"] = f"more than {MAX_GPUS:,} GPUs cannot be listed one by one"
        return
    _explicit(host, imported, answers, nodes, gpu, nic)


def _nvlink(host: Host, imported: Imported, answers: Answers) -> float | None:
    """Bytes/s of a GPU into its NVSwitch, or of a pair."""
    counts = set(host.switch_links.values()) or set(host.pairs.values())
    if host.link_rate is not None and counts and answers.nvlink is None:
        known = "the file" if host.gpu else "a data sheet"
        imported.sources["nvlink"] = (
            f"{max(counts)} x {host.link_rate / 1e9:g} GB/s, links by the file, rate by {known}"
        )
        return max(counts) * host.link_rate
    if not counts and len(host.gpus) > 1 and not host.nvlink_unknown:
        return None
    rate = nvlink_rate(imported, answers, max(counts) if counts else None)
    if not counts and host.nvlink_unknown and rate is not None:
        imported.sources["nvlink"] += "; assumed to join all GPUs"
        host.switch_links, host.link_rate = dict.fromkeys(host.gpus, 1), rate
    return rate


def _own_nics(host: Host) -> int | None:
    """NICs of each GPU where all have equally many of their own; None where some share one."""
    users: dict[tuple[str, ...], int] = {}
    for nics in host.nic_of_gpu.values():
        users[tuple(nics or ())] = users.get(tuple(nics or ()), 0) + 1
    apart = sum(map(len, users)) == len({nic for nics in users for nic in nics})
    shares = {len(nics) / count for nics, count in users.items()}
    share = shares.pop() if len(shares) == 1 else 0.5
    return int(share) if apart and share >= 1 and share.is_integer() else None


def _fabric(imported: Imported, answers: Answers, nodes: int) -> str:
    if nodes > 1 and not answers.fabric:
        imported.ask("--fabric", "how NICs of several nodes are joined: one-leaf, rail or leaf-spine")
    if nodes > 1 and answers.fabric in ("rail", "leaf-spine") and answers.spines is None:
        imported.ask("--spines", f"spine switches of the {answers.fabric} fabric")
    return "leaf-spine" if answers.fabric == "one-leaf" else answers.fabric


def _leaves(imported: Imported, answers: Answers, fabric: str, nodes: int) -> Facts:
    if answers.fabric == "one-leaf":
        imported.sources["leaf_spine"] = "no spine is used: all NICs are on one leaf"
        return {"nodes_per_leaf": nodes, "leaf_spine": {"spines": 1}}
    imported.sources["leaf_spine"] = "from --spines; full bisection assumed"
    own = {"nodes_per_leaf": answers.nodes_per_leaf or 1} if fabric == "leaf-spine" else {}
    return own | {"leaf_spine": {"spines": answers.spines}}


def _explicit(host: Host, imported: Imported, answers: Answers, nodes: int, gpu: str, nic: float | None) -> None:
    boxed = len(host.domains) > 1 or (bool(host.pairs) and len(host.gpus) > 2 and not _full(host))
    bridges = list(dict.fromkeys(host.bridge.values())) if boxed else []
    pcie = {name: answers.pcie or host.pcie.get(name) for name in [*host.gpus, *host.nics]}
    if any(pcie[name] is None for name in host.gpus):
        imported.ask("--pcie", "the PCIe link of a GPU, such as gen5 x16")
    if len(bridges) > 1 and answers.smp is None:
        imported.ask("--smp", "the rate between host bridges, such as 20GB/s")
        imported.facts["moesim_note"] = (
            "needs a host level below node, or explicit with node = pair and host bridges as switches"
        )
    if nodes > 1 and answers.fabric != "one-leaf":
        imported.ask("--fabric one-leaf", "devices listed one by one are joined at one leaf")
    if imported.asked:
        return
    imported.sources["pcie"] = "from --pcie" if answers.pcie else "from the file"
    imported.sources["latency"] = "NVLink and NIC as moesim assumes, PCIe none"
    devices, links = list[Facts](), list[Facts]()
    domain = {host.gpus[i]: d for d, members in enumerate(host.domains) for i in members}
    used = list(dict.fromkeys(name for gpu_nics in host.nic_of_gpu.values() for name in gpu_nics or ()))

    def link(source: str, target: str, rate: str, link_class: str, latency: str = "") -> None:
        ends = {"source": source, "target": target, "bandwidth": rate}
        links.append(ends | ({"latency": latency} if latency else {}) | {"class": link_class})

    for i in range(nodes):
        at = f"n{i}." if nodes > 1 else ""
        first = i * len(host.domains)
        if host.switch_links:
            devices.append({"name": f"{at}nvswitch", "type": "switch", "node": first})
        devices += [{"name": f"{at}{name}", "type": "gpu", "node": first + domain[name]} for name in host.gpus]
        devices += [{"name": f"{at}{_name(name)}", "type": "switch"} for name in (*bridges, *used)]
        for name, count in host.switch_links.items():
            rate = answers.nvlink or count * (host.link_rate or 0)
            link(f"{at}{name}", f"{at}nvswitch", gbps(rate), "nvlink", "3.33us")
        for (one, other), count in host.pairs.items():
            rate = answers.nvlink or count * (host.link_rate or 0)
            link(f"{at}{one}", f"{at}{other}", gbps(rate), "nvlink", "3.33us")
        for name in host.gpus if bridges else ():
            link(f"{at}{name}", f"{at}{_name(host.bridge[name])}", gbps(pcie[name]), "pcie")
        for j, one in enumerate(bridges):
            for other in bridges[j + 1 :]:
                link(f"{at}{_name(one)}", f"{at}{_name(other)}", gbps(answers.smp), "smp")
        for name, taken in host.nic_of_gpu.items():
            for nic_name in taken or () if not bridges else ():
                link(f"{at}{name}", f"{at}{_name(nic_name)}", gbps(pcie[name]), "pcie")
        for nic_name in used if bridges else ():
            behind = next(host.bridge[name] for name, taken in host.nic_of_gpu.items() if nic_name in (taken or ()))
            link(f"{at}{_name(nic_name)}", f"{at}{_name(behind)}", gbps(pcie[nic_name] or pcie[host.gpus[0]]), "pcie")
        for nic_name in used:
            port = network_gbps(answers.nic or host.nic_rate.get(nic_name) or nic)
            link(f"{at}{_name(nic_name)}", "leaf", port, "nic", "2.8us")
    if used:
        devices.append({"name": "leaf", "type": "switch"})
    imported.spec = {"kind": "explicit", "gpu": gpu, "nodes": devices, "links": links}
    if not bridges:
        imported.facts["moesim_note"] = "NICs carry no node number, else NVLink traffic would go over a shared NIC"


def _full(host: Host) -> bool:
    return len(host.pairs) == len(host.gpus) * (len(host.gpus) - 1) // 2


def _name(name: str) -> str:
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "_.-" else "." for c in name)
    return (kept if kept[:1].isalnum() or kept[:1] == "_" else f"x{kept}")[:48]
