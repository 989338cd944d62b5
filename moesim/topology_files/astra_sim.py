"""ASTRA-sim's analytical ``network.yml``: dimensions of rings, switches and full connections.

Its GB is 2^30 bytes, its latency that of one link; dimension 0 is innermost. Two switched dimensions are nodes
and rails that nothing else joins: kind multi-plane; one is a node; others are written link by link.
"""

import itertools
import math
from typing import Any

from moesim.errors import InputError
from moesim.located_yaml import parse_yaml
from moesim.topology_files.host_topology import MAX_GPUS
from moesim.topology_files.imported import Answers, Facts, Imported, gbps
from moesim.units import exact_duration

_KEYS = ("topology", "npus_count", "bandwidth", "latency")
_BLOCKS = ("Ring", "FullyConnected", "Switch")


def read_astra(text: str, where: str, answers: Answers) -> Imported:
    """Return the facts of a network file and the topology it is.

    Raises:
        InputError: lists of unequal length, blocks that are unknown, numbers that cannot be.
    """
    document = parse_yaml(text, where)
    data: Any = document.data
    lists: dict[str, Any] = {key: data.get(key) for key in _KEYS} if isinstance(data, dict) else {}
    if not lists or any(not isinstance(value, list) or not value for value in lists.values()):
        raise document.error((), f"needs lists of one length: {', '.join(_KEYS)}", "one entry for each dimension")
    if len({len(value) for value in lists.values()}) > 1 or len(lists["topology"]) > 8:
        raise document.error((), "lists of unequal length, or more than 8 dimensions", "one entry for each dimension")
    blocks, counts = lists["topology"], lists["npus_count"]
    for key, good, right in (
        ("topology", lambda v: v in _BLOCKS, f"one of {', '.join(_BLOCKS)}"),
        ("npus_count", lambda v: isinstance(v, int) and 1 < v <= 65_536, "a whole number from 2 to 65536"),
        ("bandwidth", lambda v: _real(v) and 0 < v < 1e9, "GB/s, more than 0"),
        ("latency", lambda v: _real(v) and 0 <= v <= 1e9, "ns, 0 or more"),
    ):
        for i, value in enumerate(lists[key]):
            if not good(value):
                raise document.error((key, i), f"{value!r:.40} cannot be", f"write {right}")
    total = math.prod(counts)
    if total > 65_536:
        raise document.error(("npus_count",), f"{total} NPUs are more than 65536", "use a smaller network")
    rates = [float(value) * 2**30 for value in lists["bandwidth"]]
    delays = [float(value) * 1e-9 for value in lists["latency"]]
    classes = ["nvlink", "nic", "leaf-spine"] if len(blocks) > 1 else ["nvlink"]
    classes += [f"dimension-{i}" for i in range(3, len(blocks))]
    places = ["one per node", "one per index in the node", *(f"dimension {i}" for i in range(2, 8))]
    devices: list[Facts] = [{"kind": "gpu", "count": total}]
    links: list[Facts] = []
    for i, (block, count) in enumerate(zip(blocks, counts, strict=True)):
        if block == "Switch":
            devices.append({"kind": "switch", "name": f"dimension {i}, {places[i]}", "count": total // count})
        end = f"dimension {i}" if block == "Switch" else f"gpu, {block} of {count}"
        link = {"source": "gpu", "target": end, "class": classes[i], "GBps": round(rates[i] / 1e9, 4)}
        links.append(link | {"latency_ns": delays[i] * 1e9})
    imported = Imported({"format": "ASTRA-sim network.yml", "devices": devices, "links": links, "warnings": []})
    imported.warn(f"its GB is 2^30 bytes: {lists['bandwidth'][0]:g} is {rates[0] / 1e9:.3f}e9 bytes/s")
    if "Switch" in blocks:
        switched = [delay for delay, block in zip(delays, blocks, strict=True) if block == "Switch"]
        ends = " and ".join(f"{2e6 * delay:.6g} us" for delay in switched)
        twice = f"gpu-switch-gpu is twice it: {ends} in moesim"
        imported.warn(f"latency is per link, so {twice}, whose latency is end to end")
    if not answers.gpu:
        imported.ask("--gpu", "the GPU's model, such as h100")
        return imported
    imported.sources |= {
        "gpu": "from --gpu",
        "nvlink": "from the file",
        "nic": "from the file",
        "links": "from the file",
    }
    if blocks == ["Switch"] or blocks == ["Switch", "Switch"]:
        imported.spec = _regular(imported, answers.gpu, counts, rates, delays)
    elif total > MAX_GPUS:
        imported.facts["moesim_note"] = f"more than {MAX_GPUS:,} GPUs cannot be listed link by link"
    else:
        imported.spec = _explicit(answers.gpu, blocks, counts, rates, delays, classes)
        if len(blocks) > 1 or (blocks == ["Ring"] and counts[0] > 3):
            imported.facts["moesim_note"] = "its GPUs forward for others, which GPUs of kind explicit do not"
    return imported


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _regular(imported: Imported, gpu: str, counts: list[int], rates: list[float], delays: list[float]) -> Facts:
    ports = [
        {"bandwidth": gbps(rate), "latency": exact_duration(float(f"{2 * delay:.12g}"))}
        for rate, delay in zip(rates, delays, strict=True)
    ]
    if len(counts) == 1:
        return {"kind": "hgx", "gpu": gpu, "gpus_per_node": counts[0], "nvlink": ports[0]}
    imported.facts["moesim_note"] = (
        "dimension 1 joins GPUs of equal index only; others go first over dimension 0, which is kind multi-plane"
    )
    imported.sources["leaf_spine"] = "not used: a plane is one leaf"
    spec: Facts = {"kind": "multi-plane", "gpu": gpu, "nodes": counts[1], "gpus_per_node": counts[0]}
    spec |= {"nodes_per_leaf": max(counts[1], 32), "nvlink": ports[0], "nic": ports[1]}
    return spec | {"leaf_spine": {"spines": 1}, "routing": "spray"}


def _explicit(
    gpu: str, blocks: list[str], counts: list[int], rates: list[float], delays: list[float], classes: list[str]
) -> Facts:
    total = math.prod(counts)
    devices: list[Facts] = [{"name": f"gpu{i}", "type": "gpu", "node": i // counts[0]} for i in range(total)]
    links: list[Facts] = []
    stride = 1
    for d, (block, count) in enumerate(zip(blocks, counts, strict=True)):
        for first in (i for i in range(total) if i // stride % count == 0):
            members = [f"gpu{first + k * stride}" for k in range(count)]
            if block == "Switch":
                switch = f"dimension{d}.switch{first}"
                devices.append({"name": switch, "type": "switch"} | ({"node": first // counts[0]} if d == 0 else {}))
                pairs = [(member, switch) for member in members]
                delay = 2 * delays[d]
            else:
                ring = list(zip(members, members[1:] + members[:1], strict=True))
                pairs = ring if block == "Ring" and count > 2 else list(itertools.combinations(members, 2))
                delay = delays[d]
            for source, target in pairs:
                link: Facts = {"source": source, "target": target, "bandwidth": gbps(rates[d])}
                link |= {"latency": exact_duration(float(f"{delay:.12g}"))}
                if block != "Switch":
                    link["latency_back"] = link["latency"]
                links.append(link | {"class": classes[d]})
        stride *= count
    if len(links) > 200_000:
        raise InputError(f"{len(links)} links", fix="use a smaller network")
    return {"kind": "explicit", "gpu": gpu, "nodes": devices, "links": links}
