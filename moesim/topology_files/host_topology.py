"""From one host to a topology: a regular kind where its GPUs are alike, else every device and link by name.

In an explicit topology a NIC is a switch that belongs to no node, so that no NVLink traffic goes over it. Where NVLink
joins some GPUs of a host and not all, each NVLink domain is a node, and host bridges join them.
"""

import itertools

from moesim.topology_files.host import Host
from moesim.topology_files.imported import Answers, Facts, Imported
from moesim.topology_files.link_rates import nvlink_rate
from moesim.topology_files.listing import MAX_GPUS, cable, device_name, explicit, gbps, network_gbps


def host_topology(host: Host, imported: Imported, answers: Answers, n_files: int = 1) -> None:
    """Give ``imported`` the topology of hosts like this one, or the options that are missing."""
    domain, nodes = answers.nvlink_domain or len(host.gpus), answers.nodes or n_files
    if nodes > 1:
        nodes, rest = divmod(nodes * len(host.gpus), domain)
        if rest:
            imported.ask("--nodes", f"hosts of {len(host.gpus)} GPUs that make whole NVLink domains of {domain}")
    gpu = imported.ask_gpu(answers, host.gpu)
    cards, used = nic_cards(host), host.used
    inside = node_inside(host, imported, answers)
    nic = answers.nic or next((host.nic_rate[name] for name in used if name in host.nic_rate), None)
    if used and nic is None:
        imported.ask("--nic", "the rate of a NIC, such as 400Gb/s")
    elif used:
        imported.sources["nic"] = "from --nic" if answers.nic else "from the file"
    if nodes > 1 and not used:
        imported.ask("--nodes", "1: the file has no NIC")
    if nodes > 1 and not answers.fabric:
        imported.ask("--fabric", "how NICs of several nodes are joined: one-leaf, rail or leaf-spine")
    if nodes > 1 and answers.fabric in ("rail", "leaf-spine") and answers.spines is None:
        imported.ask("--spines", f"spine switches of the {answers.fabric} fabric")
    shared = cards is not None and "gpus" in cards
    regular = bool(inside) and cards is not None and (not shared or nodes > 1 or "pcie" in inside)
    pcie = _pcie(host, imported, answers) if shared or not regular else {}
    if imported.asked:
        return
    if regular and cards is not None:
        spec: Facts = {"kind": "hgx", "gpu": gpu}
        if nodes > 1:
            spec |= {"kind": "leaf-spine" if answers.fabric == "one-leaf" else answers.fabric, "nodes": nodes}
        spec |= {"gpus_per_node": domain} | inside
        if used:
            spec["nic"] = {"bandwidth": network_gbps(nic)} | cards
            spec["nic"] |= {"pcie": pcie["bandwidth"]} if shared and "nvlink" in inside else {}
        imported.spec = spec | (_leaves(imported, answers, nodes) if nodes > 1 else {})
    elif len(host.gpus) * nodes > MAX_GPUS:
        imported.facts["moesim_note"] = f"more than {MAX_GPUS:,} GPUs cannot be listed one by one"
    elif nodes > 1 and answers.fabric != "one-leaf":
        imported.ask("--fabric one-leaf", "devices listed one by one are joined at one leaf")
    else:
        _explicit(host, imported, answers, nodes, gpu, used)


def node_inside(host: Host, imported: Imported, answers: Answers) -> Facts:
    """What joins the GPUs of a host as a regular kind says it; empty where none does, and what is missing is asked."""
    rate = _nvlink(host, imported, answers)
    if len(host.gpus) > 1 and not (host.switch_links or host.pairs or host.nvlink_unknown):  # PCIe alone
        sizes = [len(list(members)) for _, members in itertools.groupby(host.bridge.get(gpu) for gpu in host.gpus)]
        pcie = _pcie(host, imported, answers)
        return {"pcie": pcie} if len(set(sizes)) == 1 and len(sizes) == pcie.get("hosts", 1) else {}
    meshed = len(host.domains) > 1 or (bool(host.pairs) and len(host.gpus) > 2)
    alike = rate is not None and not meshed and len(set(host.switch_links.values())) < 2
    return {"nvlink": {"bandwidth": gbps(rate)}} if alike else {}


def _nvlink(host: Host, imported: Imported, answers: Answers) -> float | None:
    """Bytes/s of a GPU into its NVSwitch, or of a pair; None where the host has no NVLink or nothing says it."""
    counts = set(host.switch_links.values()) or set(host.pairs.values())
    if host.link_rate is not None and counts and answers.nvlink is None:
        known = "the file" if host.gpu else "a data sheet"
        each = host.link_rate / 1e9
        imported.sources["nvlink"] = f"{max(counts)} x {each:g} GB/s, links by the file, rate by {known}"
        return max(counts) * host.link_rate
    if not counts and len(host.gpus) > 1 and not host.nvlink_unknown:
        return None
    rate = nvlink_rate(imported, answers, max(counts) if counts else None)
    if not counts and host.nvlink_unknown and rate is not None:
        imported.sources["nvlink"] += "; assumed to join all GPUs"
        host.switch_links, host.link_rate = dict.fromkeys(host.gpus, 1), rate
    return rate


def nic_cards(host: Host) -> Facts | None:
    """How a regular kind says which GPUs hang on which NICs; None where it cannot."""
    taken = [tuple(nics or ()) for nics in host.nic_of_gpu.values()]
    users = {nics: taken.count(nics) for nics in taken}
    if not host.used:
        return {}
    if len(host.used) < sum(map(len, users)) or not all(taken):
        return None
    share = {len(nics) / count for nics, count in users.items()}
    if len(share) == 1 and (each := share.pop()) >= 1:
        return ({"per_gpu": int(each)} if each > 1 else {}) if each.is_integer() else None
    if any(len(nics) > 1 for nics in users):
        return None
    return {"gpus": [[i for i, own in enumerate(taken) if own == nics] for nics in sorted(users, key=taken.index)]}


def _pcie(host: Host, imported: Imported, answers: Answers) -> Facts:
    """The PCIe link of a GPU, with the rate between host bridges where there are several."""
    rate = answers.pcie or host.pcie.get(host.gpus[0])
    if rate is None:
        imported.ask("--pcie", "the PCIe link of a GPU, such as gen5 x16")
    else:
        imported.sources["pcie"] = "from --pcie" if answers.pcie else "from the file"
    bridges = [host.bridge.get(gpu, "") for gpu in host.gpus]
    several = len(set(bridges)) > 1 and not host.switch_links and not host.nvlink_unknown
    several = several and (len(host.domains) > 1 or len(host.pairs) < len(host.gpus) * (len(host.gpus) - 1) // 2)
    if several and answers.smp is None:
        imported.ask("--smp", "the rate between host bridges, such as 20GB/s")
        if host.pairs:
            note = "needs a host level below node, or explicit with node = pair and host bridges as switches"
            imported.facts["moesim_note"] = note
    between = {"hosts": len(set(bridges)), "between_hosts": gbps(answers.smp)} if several else {}
    return {"bandwidth": gbps(rate)} | between


def _leaves(imported: Imported, answers: Answers, nodes: int) -> Facts:
    if answers.fabric == "one-leaf":
        imported.sources["leaf_spine"] = "no spine is used: all NICs are on one leaf"
        return {"nodes_per_leaf": nodes, "leaf_spine": {"spines": 1}}
    imported.sources["leaf_spine"] = "from --spines; full bisection assumed"
    own = {"nodes_per_leaf": answers.nodes_per_leaf or 1} if answers.fabric == "leaf-spine" else {}
    return own | {"leaf_spine": {"spines": answers.spines}}


def _explicit(host: Host, imported: Imported, answers: Answers, nodes: int, gpu: str, used: list[str]) -> None:
    full = len(host.pairs) == len(host.gpus) * (len(host.gpus) - 1) // 2
    boxed = len(host.domains) > 1 or (bool(host.pairs) and len(host.gpus) > 2 and not full)
    bridges = list(dict.fromkeys(host.bridge.values())) if boxed else []
    pcie = {name: gbps(answers.pcie or host.pcie.get(name) or host.pcie.get(host.gpus[0]))
            for name in [*host.gpus, *used]}  # fmt: skip
    imported.sources["latency"] = "NVLink and NIC as moesim assumes, PCIe none"
    devices, links = list[tuple[str, str, int]](), list[Facts]()
    for i in range(nodes):
        at, first = f"n{i}." if nodes > 1 else "", i * len(host.domains)
        devices += [("switch", f"{at}nvswitch", first)] if host.switch_links else []
        node = {host.gpus[k]: first + d for d, members in enumerate(host.domains) for k in members}
        devices += [("gpu", at + name, node[name]) for name in host.gpus]
        devices += [("switch", at + device_name(name), -1) for name in (*bridges, *used)]
        for (one, other), count in host.nvlinks.items():
            rate = gbps(answers.nvlink or count * (host.link_rate or 0))
            links.append(cable(at + one, at + other, "nvlink", rate, "3.33us", level=other != "nvswitch"))
        for name, nics in host.nic_of_gpu.items():
            ends = [host.bridge[name]] if bridges else nics or []
            links += [cable(at + name, at + device_name(end), "pcie", pcie[name]) for end in ends]
        links += [cable(at + device_name(one), at + device_name(other), "smp", gbps(answers.smp))
                  for j, one in enumerate(bridges) for other in bridges[j + 1 :]]  # fmt: skip
        for nic in used:
            behind = next(host.bridge[name] for name, taken in host.nic_of_gpu.items() if nic in (taken or ()))
            links += [cable(at + device_name(nic), at + device_name(behind), "pcie", pcie[nic])] if bridges else []
            port = network_gbps(answers.nic or host.nic_rate.get(nic))
            links.append(cable(at + device_name(nic), "leaf", "nic", port, "2.8us"))
    imported.spec = explicit(gpu, devices + ([("switch", "leaf", -1)] if used else []), links)
    if not bridges:
        imported.facts["moesim_note"] = "NICs carry no node number, else NVLink traffic would go over a shared NIC"
