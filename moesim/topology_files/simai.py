"""SimAI's topology text: a line of counts, a line of switch ids, then a line for each two-way cable.

GPU i is in node i // gpus_per_server. Delays are of one link: a route's are summed.
"""

import re

from moesim.errors import InputError
from moesim.topology_files.imported import Answers, Facts, Imported
from moesim.topology_files.listing import MAX_GPUS, cable, explicit, gbps, network_gbps, time_of
from moesim.topology_files.two_tiers import TwoTiers
from moesim.units import parse_bandwidth, parse_duration

MAX_NODES = 100_000
_TEMPLATE_NVLINK = 360e9
Ends = tuple[int, int]
Links = dict[Ends, tuple[float, float, int]]
"""Both ends, the lower id first, to bytes/s of all parallel cables, seconds, and their number."""


def read_simai(text: str, where: str, answers: Answers) -> Imported:
    """Return the facts of a SimAI topology and the topology it is.

    Raises:
        InputError: counts that cannot be, a line that is no link, a link of a device that is not there.
    """
    lines = [(f"{where}:{i}", line.split()) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    place, first = lines[0]
    total, per_server, nvswitches, switches, n_links = (int(word[:18]) for word in first[:5])
    gpus = total - nvswitches - switches
    if total > MAX_NODES or gpus < 1 or per_server < 1 or gpus % per_server:
        counts = f"{total} devices, {nvswitches} NVSwitches and {switches} switches of them"
        fix = "give counts that fit, at most 100,000 devices"
        raise InputError(f"{counts}, are {gpus} GPUs of {per_server}", place, fix)
    own_line = len(lines) > 1 and len(lines[1][1]) == nvswitches + switches
    ids = [_id(word, total, lines[1][0]) for word in lines[1][1]] if own_line else list(range(gpus, total))
    body = lines[2 if own_line else 1 :]
    if len(body) != n_links:
        raise InputError(f"{len(body)} links, the first line says {n_links}", where, "is the file whole?")
    links: Links = {}
    for place, words in body:
        if len(words) < 4:
            raise InputError("is no link", place, "source target 400Gbps 0.0005ms 0")
        low, high = sorted(_id(word, total, place) for word in words[:2])
        try:
            rate = parse_bandwidth(re.sub(r"bps$", "b/s", re.sub(r"Bps$", "B/s", words[2])))
            delay = parse_duration(words[3])
        except InputError as error:
            raise InputError(error.what, place, error.fix) from None
        before = links.get((low, high), (0.0, 0.0, 0))
        links[low, high] = before[0] + rate, max(delay, before[1]), before[2] + 1
    nvs = ids[:nvswitches]
    about: list[Facts] = [{"kind": "gpu", "count": gpus, "gpus_per_node": per_server}, {"kind": "nvswitch", "ids": nvs}]
    imported = Imported({"format": "SimAI topology", "devices": [*about, {"kind": "switch", "ids": ids[nvswitches:]}]})
    gpu = imported.ask_gpu(answers, first[5].lower(), "from the file")
    _topology(gpus, per_server, set(nvs), links, gpu, imported)
    return imported


def _topology(gpus: int, per_server: int, nvs: set[int], links: Links, gpu: str, imported: Imported) -> None:
    nodes = gpus // per_server
    nvlink = {ends: link for ends, link in links.items() if ends[0] < gpus and ends[1] in nvs}
    nic = {ends: link for ends, link in links.items() if ends[0] < gpus and ends[1] not in nvs}
    leaves = {leaf for _, leaf in nic}
    rest = {ends: link for ends, link in links.items() if ends[0] >= gpus}
    up = {(a, b) if a in leaves else (b, a): link for (a, b), link in rest.items()}
    for link_class, own in (("nvlink", nvlink), ("nic", nic), ("leaf-spine", up)):
        for rate, delay in list(dict.fromkeys(link[:2] for link in own.values()))[:64]:
            alike = [ends for ends, link in own.items() if link[:2] == (rate, delay)]
            count, each = sum(own[ends][2] for ends in alike), rate / own[alike[0]][2] / 1e9
            ends = _span([a for a, _ in alike], gpus), _target(alike, gpus, per_server)
            imported.link(*ends, link_class, count=count, GBps=each, latency_us=round(delay * 1e6, 9))
    if any(rate == _TEMPLATE_NVLINK for rate, _, _ in nvlink.values()):
        what = "2880Gbps of NVLink is what SimAI's template assumes for H100 (360 GB/s), not the 450 GB/s peak"
        imported.warn(what)
    nic_delay = max((delay for _, delay, _ in nic.values()), default=0.0)
    if nic:
        imported.warn(f"delays are per link: gpu to gpu under one leaf is {2e6 * nic_delay:g} us")
    tiers = TwoTiers(
        {divmod(at, per_server): str(leaf) for at, leaf in nic},
        {divmod(at, per_server): rate for (at, _), (rate, _, _) in nic.items()},
        {(str(leaf), str(spine)): rate for (leaf, spine), (rate, _, _) in up.items()},
    )
    ratios = {round(ratio, 6) for ratio in tiers.oversubscription().values()}
    if len(ratios) == 1:
        below = sum(leaf == next(iter(tiers.up))[0] for leaf in tiers.leaf.values())
        each, above = (next(iter(of.values())) / 1e9 for of in (tiers.nic, tiers.up))
        sums = f"{below} x {each:g} / ({tiers.spines} x {above:g})"
        imported.warn(f"oversubscription of a leaf is {sums}: {ratios.pop():g} with {nodes} nodes")
    imported.sources |= dict.fromkeys(("nvlink", "nic", "leaf_spine", "links"), "from the file")
    one_rate = all(len({link[:2] for link in own.values()}) <= 1 for own in (nvlink, nic, up))
    own_switch = len({(at // per_server, switch) for at, switch in nvlink}) == nodes and len(nvlink) == gpus
    if one_rate and own_switch and len(tiers.leaf) == len(nic) == gpus:
        rate, delay, _ = next(iter(nvlink.values()))
        above = next((delay for _, delay, _ in up.values()), 0.0)
        inside = {"nvlink": {"bandwidth": gbps(rate), "latency": time_of(2 * delay)}}
        imported.spec = tiers.spec(gpu, inside, 2 * nic_delay, 2 * above)
    if imported.spec is not None:
        return
    if gpus > MAX_GPUS:
        imported.facts["moesim_note"] = f"no regular kind holds it, and more than {MAX_GPUS:,} GPUs cannot be listed"
        return
    # The delay of both links of a way is on the sender's.
    node = {at: at // per_server for at in range(gpus)}
    node |= {switch: node[at] for at, switch in nvlink}
    name = {
        at: f"gpu{at}" if at < gpus else f"switch{at}"
        for at in sorted({*range(gpus), *(at for ends in links for at in ends)})
    }
    cables = [cable(name[a], name[b], "nvlink" if (a, b) in nvlink else "nic" if (a, b) in nic else "leaf-spine",
                    network_gbps(rate), time_of(2 * delay)) for (a, b), (rate, delay, _) in links.items()]  # fmt: skip
    devices = [("gpu" if at < gpus else "switch", name[at], node.get(at, -1)) for at in name]
    imported.spec = explicit(gpu, devices, cables)
    imported.facts["moesim_note"] = "no regular kind holds it: listed link by link"


def _id(word: str, total: int, where: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", word) or int(word) >= total:
        raise InputError(f"{word:.20} is no device of {total}", where, "ids count from 0")
    return int(word)


def _span(ids: list[int], gpus: int) -> str:
    if min(ids) == 0 and len(set(ids)) == gpus:
        return "gpu i"
    return f"{min(ids)}..{max(ids)}" if len(set(ids)) > 1 else str(ids[0])


def _target(ends: list[Ends], gpus: int, per_server: int) -> str:
    ids = sorted({b for _, b in ends})
    for sign, index in (("//", 0), ("%", 1)):
        if len(ends) == gpus and all(b == ids[0] + divmod(a, per_server)[index] for a, b in ends):
            return f"{ids[0]} + i{sign}{per_server}"
    return ", ".join(map(str, ids[:8]))
