"""NCCL's graph dump (``NCCL_GRAPH_DUMP_FILE``): which NIC each channel leaves by. A check, no topology.

``dev`` is hexadecimal there. Speeds are GB/s of a channel in NCCL's own rates.
"""

from moesim.topology_files.imported import Facts, Imported
from moesim.topology_files.xml_tree import Element, parse_xml

_NAMES = {"0": "ring", "1": "tree", "2": "collnet", "3": "NVLS"}


def read_nccl_graph(text: str, where: str) -> Imported:
    """Return the facts of a graph dump: devices, rings, and the rate of all rings together."""
    graphs = [graph for graph in parse_xml(text, "graphs", where).below("graph")]
    gpus: dict[int, Facts] = {}
    nets: dict[int, Facts] = {}
    rings, warnings, empty = [], list[str](), list[str]()
    for graph in graphs:
        channels = list(graph.below("channel"))
        if not channels:
            empty.append(f"{graph.get('id')} ({_NAMES.get(graph.get('id'), 'unknown')})")
        for channel in channels:
            for gpu in channel.below("gpu"):
                dev = _dev(gpu, warnings)
                rank = {"rank": int(gpu.number("rank"))} if gpu.get("rank") else {}
                gpus.setdefault(dev, {"name": f"gpu{dev}", "kind": "gpu"} | rank)
            ends = [_dev(net, warnings) for net in channel.below("net")]
            nets |= {dev: {"name": f"net{dev}", "kind": "nic", "dev": dev} for dev in ends}
            if graph.get("id") == "0":
                order = [_dev(gpu, warnings) for gpu in channel.below("gpu")]
                way = {"net_in": ends[0], "net_out": ends[-1]} if ends else {"net_in": None, "net_out": None}
                rings.append({"net_in": way["net_in"], "gpus": order, "net_out": way["net_out"]})
    ring = next((graph for graph in graphs if graph.get("id") == "0"), None)
    if empty:
        one = len(empty) == 1
        warnings.append(f"graph{'' if one else 's'} {' and '.join(empty)} {'has' if one else 'have'} no channel")
    return Imported(
        {
            "format": "NCCL graph XML",
            "use": "check only: which NIC a channel leaves by; no topology can be made of it",
            "devices": [by[dev] for by in (gpus, nets) for dev in sorted(by)],
            "links": [],
            "rings": rings,
            "ring_GBps": None if ring is None else len(rings) * ring.number("speedintra"),
            "warnings": list(dict.fromkeys(warnings)),
        }
    )


def _dev(element: Element, warnings: list[str]) -> int:
    text = element.get("dev")
    try:
        dev = int(text, 16)
    except ValueError:
        return -1
    if text.lower().startswith("0x") and dev > 9:
        warnings.append(f"dev {text} is {dev}: numbers of this file are hexadecimal")
    return dev
