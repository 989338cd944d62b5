"""NCCL's graph dump (``NCCL_GRAPH_DUMP_FILE``): which NIC each channel leaves by. A check, no topology.

``dev`` is hexadecimal there. Speeds are GB/s of a channel in NCCL's own rates.
"""

from xml.etree.ElementTree import Element

from moesim.topology_files.file_text import number, parse_xml
from moesim.topology_files.imported import Facts, Imported

_NAMES = {"0": "ring", "1": "tree", "2": "collnet", "3": "NVLS"}


def read_nccl_graph(text: str, where: str) -> Imported:
    """Return the facts of a graph dump: devices, rings, and the rate of all rings together."""
    graphs = list(parse_xml(text, "graphs", where).iter("graph"))
    gpus: dict[int, Facts] = {}
    nets: set[int] = set()
    rings, warnings = list[Facts](), list[str]()
    for graph in graphs:
        for channel in graph.iter("channel"):
            ends, order = ([_dev(at, warnings) for at in channel.iter(tag)] for tag in ("net", "gpu"))
            for dev, gpu in zip(order, channel.iter("gpu"), strict=True):
                rank = {"rank": int(number(gpu, "rank"))} if gpu.get("rank") else {}
                gpus.setdefault(dev, {"name": f"gpu{dev}", "kind": "gpu"} | rank)
            nets |= set(ends)
            if graph.get("id") == "0":
                first, last = (ends[0], ends[-1]) if ends else (None, None)
                rings.append({"net_in": first, "gpus": order, "net_out": last})
    ring = next((graph for graph in graphs if graph.get("id") == "0"), None)
    ids = [graph.get("id", "") for graph in graphs if graph.find("channel") is None]
    if ids:
        empty = " and ".join(f"{one} ({_NAMES.get(one, 'unknown')})" for one in ids)
        warnings.append(f"graph{'s' * (len(ids) > 1)} {empty} {'has' if len(ids) == 1 else 'have'} no channel")
    nics = [{"name": f"net{dev}", "kind": "nic", "dev": dev} for dev in sorted(nets)]
    return Imported(
        {
            "format": "NCCL graph XML",
            "use": "check only: which NIC a channel leaves by; no topology can be made of it",
            "devices": [gpus[dev] for dev in sorted(gpus)] + nics,
            "rings": rings,
            "ring_GBps": None if ring is None else len(rings) * number(ring, "speedintra"),
            "warnings": list(dict.fromkeys(warnings)),
        }
    )


def _dev(element: Element, warnings: list[str]) -> int:
    text = element.get("dev", "")
    try:
        dev = int(text, 16)
    except ValueError:
        return -1
    if text.lower().startswith("0x") and dev > 9:
        warnings.append(f"dev {text} is {dev}: numbers of this file are hexadecimal")
    return dev
