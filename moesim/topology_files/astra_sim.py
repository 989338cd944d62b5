"""ASTRA-sim's analytical ``network.yml``: dimensions of rings, switches and full connections.

Its GB is 2^30 bytes, its latency that of one link; dimension 0 is innermost. Two switched dimensions are nodes
and rails that nothing else joins: kind multi-plane; one is a node; others are written link by link. An NPU forwards for
others, which a GPU of kind explicit does not: there each NPU is a GPU behind a router of its own. Ways over several
dimensions are those of the fewest links, whichever dimension comes first.
"""

import itertools
import math
from typing import Any

from moesim.errors import InputError
from moesim.located_yaml import parse_yaml
from moesim.topology_files.imported import Answers, Facts, Imported
from moesim.topology_files.listing import MAX_GPUS, cable, explicit, gbps, time_of

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
    for key, good, right in (
        ("topology", lambda v: v in _BLOCKS, f"one of {', '.join(_BLOCKS)}"),
        ("npus_count", lambda v: isinstance(v, int) and 1 < v <= 65_536, "a whole number from 2 to 65536"),
        ("bandwidth", lambda v: _real(v) and 0 < v < 1e9, "GB/s, more than 0"),
        ("latency", lambda v: _real(v) and 0 <= v <= 1e9, "ns, 0 or more"),
    ):
        for i, value in enumerate(lists[key]):
            if not good(value):
                raise document.error((key, i), f"{value!r:.40} cannot be", f"write {right}")
    blocks, counts = lists["topology"], lists["npus_count"]
    total = math.prod(counts)
    if total > 65_536:
        raise document.error(("npus_count",), f"{total} NPUs are more than 65536", "use a smaller network")
    rates = [float(value) * 2**30 for value in lists["bandwidth"]]
    delays = [float(value) * 1e-9 for value in lists["latency"]]
    classes = ["nvlink", "nic", "leaf-spine", *(f"dimension-{i}" for i in range(3, 8))]
    places = ["one per node", "one per index in the node", *(f"dimension {i}" for i in range(2, 8))]
    imported = Imported({"format": "ASTRA-sim network.yml", "devices": [{"kind": "gpu", "count": total}]})
    for i, (block, count) in enumerate(zip(blocks, counts, strict=True)):
        end = f"dimension {i}" if block == "Switch" else f"gpu, {block} of {count}"
        if block == "Switch":
            switch = {"kind": "switch", "name": f"dimension {i}, {places[i]}", "count": total // count}
            imported.facts["devices"].append(switch)
        imported.link("gpu", end, classes[i], GBps=round(rates[i] / 1e9, 4), latency_ns=delays[i] * 1e9)
    imported.warn(f"its GB is 2^30 bytes: {lists['bandwidth'][0]:g} is {rates[0] / 1e9:.3f}e9 bytes/s")
    if "Switch" in blocks:
        ends = " and ".join(f"{2e6 * s:.6g} us" for s, block in zip(delays, blocks, strict=True) if block == "Switch")
        twice = f"gpu-switch-gpu is twice it: {ends} in moesim"
        imported.warn(f"latency is per link, so {twice}, whose latency is end to end")
    gpu = imported.ask_gpu(answers)
    imported.sources |= dict.fromkeys(("nvlink", "nic", "links"), "from the file")
    if imported.asked:
        return imported
    if blocks in (["Switch"], ["Switch", "Switch"]):
        imported.spec = _regular(imported, gpu, counts, rates, delays)
    elif total > MAX_GPUS:
        imported.facts["moesim_note"] = f"more than {MAX_GPUS:,} GPUs cannot be listed link by link"
    else:
        imported.spec = _listed(imported, gpu, blocks, counts, rates, delays, classes)
    return imported


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _regular(imported: Imported, gpu: str, counts: list[int], rates: list[float], delays: list[float]) -> Facts:
    ports = [{"bandwidth": gbps(rate), "latency": time_of(2 * s)} for rate, s in zip(rates, delays, strict=True)]
    if len(counts) == 1:
        return {"kind": "hgx", "gpu": gpu, "gpus_per_node": counts[0], "nvlink": ports[0]}
    imported.facts["moesim_note"] = (
        "dimension 1 joins GPUs of equal index only; others go first over dimension 0, which is kind multi-plane"
    )
    imported.sources["leaf_spine"] = "not used: a plane is one leaf"
    spec: Facts = {"kind": "multi-plane", "gpu": gpu, "nodes": counts[1], "gpus_per_node": counts[0]}
    spec |= {"nodes_per_leaf": max(counts[1], 32), "nvlink": ports[0], "nic": ports[1]}
    return spec | {"leaf_spine": {"spines": 1}, "routing": "spray"}


def _listed(
    imported: Imported, gpu: str, blocks: list[str], counts: list[int], rates: list[float], delays: list[float],
    classes: list[str],
) -> Facts:  # fmt: skip
    total = math.prod(counts)
    devices, links = [("gpu", f"gpu{i}", i // counts[0]) for i in range(total)], list[Facts]()
    direct = len(blocks) == 1 and (blocks == ["FullyConnected"] or total <= 3)
    port = {i: f"gpu{i}" if direct else f"router{i}" for i in range(total)}
    if not direct:
        devices += [("switch", port[i], i // counts[0]) for i in range(total)]
        ways = {"Ring": 2, "Switch": 1}
        most = sum(rate * ways.get(block, count - 1) for rate, block, count in zip(rates, blocks, counts, strict=True))
        links += [cable(f"gpu{i}", port[i], "router", gbps(most)) for i in range(total)]
        imported.facts["moesim_note"] = "its NPUs forward for others: each is a GPU behind a router that has its links"
    stride = 1
    for d, (block, count) in enumerate(zip(blocks, counts, strict=True)):
        for first in (i for i in range(total) if i // stride % count == 0):
            members = [port[first + k * stride] for k in range(count)]
            if block == "Switch":
                switch = f"dimension{d}.switch{first}"
                devices.append(("switch", switch, first // counts[0] if d == 0 else -1))
                pairs = [(member, switch) for member in members]
            elif block == "Ring" and count > 2:
                pairs = list(itertools.pairwise([*members, members[0]]))
            else:
                pairs = list(itertools.combinations(members, 2))
            delay = time_of((2 if block == "Switch" else 1) * delays[d])
            links += [cable(a, b, classes[d], gbps(rates[d]), delay, level=block != "Switch") for a, b in pairs]
        stride *= count
    if len(links) > 200_000:
        raise InputError(f"{len(links)} links", fix="use a smaller network")
    return explicit(gpu, devices, links)
