"""``nvidia-smi topo -m``: a matrix of how GPUs and NICs of one host reach each other.

Cells are read by count after the row's label, not by position; glued ones are cut by the known names. NIC rows
check the GPU rows. GPU model, rates and the number of nodes are not in it.
"""

import re

from moesim.errors import InputError
from moesim.topology_files.file_text import MAX_DEVICES
from moesim.topology_files.host import DISTANCES, Host, pair_nics
from moesim.topology_files.imported import Answers, Facts, Imported
from moesim.topology_files.link_rates import NVLINKS, a_gpu, capped
from moesim.topology_files.listing import in_words

_CELL = re.compile(r"\s*(X|NV(?:1[0-8]|[1-9])|PIX|PXB|PHB|NODE|SYS|SOC)")
_LEGEND = re.compile(r"^\s*(NIC[0-9]+):\s+(\S+)\s*$", re.MULTILINE)
MAX_COLUMNS = 256
Tail = tuple[str, str | None, int | None]


def read_topo_m(text: str, where: str, answers: Answers) -> tuple[Imported, Host]:
    """Return the facts and the host of one matrix; of several in a log the first."""
    lines = text.split("\n")
    heads = (i for i, line in enumerate(lines) if re.match(r"^[\s#]*GPU0\b", line) and "X" not in line.split()[:2])
    start = next(heads, None)
    if start is None:
        raise InputError("the line that names the columns is missing", where, "give the whole matrix")
    head = lines[start].replace("#", " ")
    columns = re.split(r"\bCPU Affinity|\bNUMA Affinity|\bGPU NUMA", head)[0].split()
    if len(columns) > MAX_COLUMNS or len(set(columns)) < len(columns):
        raise InputError(f"{len(columns)} columns, some alike", where, "is the header whole?")
    cell: dict[str, dict[str, str]] = {}
    tails: dict[str, str] = {}
    for number, line in enumerate(lines[start + 1 : start + 1 + MAX_DEVICES], start + 2):
        label = line.split(maxsplit=1)[0] if line.strip() else ""
        if label in cell or (label == "GPU0" and label not in columns):
            break
        if label in columns:
            cell[label], tails[label] = _cells(line, label, columns, f"{where}:{number}")
    gpus = [name for name in columns if re.fullmatch(r"GPU[0-9]+", name)]
    lost = [name for name in gpus if name not in cell]
    if lost:
        raise InputError(f"the row of {lost[0]} is missing", where, "give the whole matrix")
    for i, one in enumerate(columns):
        for other in columns[i + 1 :]:
            if one in cell and other in cell and cell[one][other] != cell[other][one]:
                what = f"row {one} says {cell[one][other]} for {other}, row {other} says {cell[other][one]} for {one}"
                raise InputError(what, where, "give the matrix as it was printed")
    nics, legend = [name for name in columns if name not in gpus], dict(_LEGEND.findall(text))
    named = {name: name.lower() for name in gpus} | {name: legend.get(name, name) for name in nics}
    for a, b in ((a, b) for a in gpus for b in nics):
        if cell[a][b].startswith("NV"):
            fix = "NVLink joins GPUs alone: give the columns' names as they were printed"
            raise InputError(f"row {a} says {cell[a][b]} for {b:.40}", where, fix)
    near = {"SOC": "SYS", "X": "PIX"}
    host = Host(
        gpus=[named[name] for name in gpus],
        nics=[named[name] for name in nics],
        distance={named[a]: {named[b]: near.get(cell[a][b], cell[a][b]) for b in nics} for a in gpus},
    )
    cards = [(named[a], named[b]) for i, a in enumerate(nics) for b in nics[i + 1 :] if cell.get(a, {}).get(b) == "PIX"]
    tail = {named[name]: _tail(tails[name], head) for name in gpus}
    imported = Imported({"format": "nvidia-smi topo -m"})
    _nvlinks(
        host, {(named[a], named[b]): cell[a][b] for i, a in enumerate(gpus) for b in gpus[i + 1 :]}, imported, answers
    )
    for gpu, (cpus, numa, own) in tail.items():
        imported.device(gpu, "gpu", numa=numa, **({} if own is None else {"gpu_numa_id": own}))
        host.bridge[gpu] = numa or cpus or "host"
    if host.switch_links:
        imported.device("nvswitch", "switch")
    pair_nics(host, imported, answers)
    unknown, idle = "ambiguous" in imported.facts, imported.facts["not_compute"]
    if len(host.gpus) == 4 and host.switch_links and any(own is not None for _, _, own in tail.values()):
        shown = f"4 GPUs with NV{max(host.switch_links.values())} and a GPU NUMA ID"
        imported.warn(f"{shown}: probably a tray of a larger NVLink domain")
        if answers.nvlink_domain is None:
            imported.ask("--nvlink-domain", "GPUs that NVLink joins, such as 72: the file may show one tray of a rack")
    for nic in host.nics:
        imported.device(nic, "nic", compute=None if unknown else nic not in idle)
    if unknown:
        imported.warn(*(f"{a} and {b} are two functions of one card (PIX): probably a DPU" for a, b in cards))
    else:
        lone = [nic for nic in idle if not any(nic in pair for pair in cards)]
        imported.warn(*(f"{nic} is nearest to no GPU: not compute" for nic in lone))
    _links(host, imported, answers)
    imported.facts["not_in_file"] = _not_in_file(host, imported, list(tail.values()), "NUMA Affinity" in head)
    return imported, host


def _cells(line: str, label: str, columns: list[str], where: str) -> tuple[dict[str, str], str]:
    at, cells = line.index(label) + len(label), dict[str, str]()
    for column in columns:
        found = _CELL.match(line, at)
        if found is None:
            what = f"row {label} has {len(cells)} cells for {len(columns)} columns: none known for {column}"
            there = f"{line[at : at + 12].strip()!r} stands there; give the matrix as it was printed"
            raise InputError(what, where, there)
        cells[column], at = found[1], found.end()
    if _CELL.match(line, at):
        raise InputError(f"row {label} has more cells than the {len(columns)} columns", where, "give the whole matrix")
    return cells, line[at:]


def _tail(text: str, head: str) -> Tail:
    """CPU list, NUMA list and the GPU's own NUMA node of the columns behind the matrix.

    Glued, as ``0-45,92-1370``, they are cut where the last range of CPUs is as long as the first.
    """
    has_numa, parts = "NUMA Affinity" in head, text.split()
    own = parts.pop() if "GPU NUMA ID" in head and len(parts) > 1 else "N/A"
    cpus, numa = (*parts, "", "")[:2]
    glued = re.fullmatch(r"([0-9]{1,8})-([0-9]{1,8})(?:,[0-9]+-[0-9]+)*,([0-9]{1,8})-([0-9]{2,9})", cpus)
    if has_numa and not numa and glued:
        end = str(int(glued[3]) + int(glued[2]) - int(glued[1]))
        if glued[4].startswith(end) and glued[4] != end:
            cut = len(glued[4]) - len(end)
            cpus, numa = cpus[:-cut], cpus[-cut:]
    return cpus, (numa or None) if has_numa else None, int(own) if re.fullmatch("[0-9]{1,5}", own) else None


def _nvlinks(host: Host, matrix: dict[tuple[str, str], str], imported: Imported, answers: Answers) -> None:
    counts = {pair: int(cell[2:]) for pair, cell in matrix.items() if cell.startswith("NV")}
    each, most = NVLINKS.get(answers.gpu, (0.0, 0))
    host.link_rate = each * 1e9 or None
    if not counts:
        if len(host.gpus) > 1:
            imported.warn("no NVLink between GPUs: every pair goes over PCIe")
        return
    count, unequal = max(counts.values()), len(counts) < len(matrix) or len(set(counts.values())) > 1
    meshed = count < most and count * (len(host.gpus) - 1) <= most
    if not unequal and len(host.gpus) > 2 and not meshed:
        host.switch_links = dict.fromkeys(host.gpus, capped(imported, answers.gpu, count))
        return
    host.pairs = {pair: capped(imported, answers.gpu, count) for pair, count in counts.items()}
    if len(host.domains) > 1 and all(len(domain) <= 2 for domain in host.domains):
        other = sorted({near for near in matrix.values() if near in DISTANCES}, key=DISTANCES.index)
        over = " or ".join(f"the CPU interconnect ({near})" if near == "SYS" else f"PCIe ({near})" for near in other)
        imported.warn(f"no NVSwitch: {count} NVLinks join pairs only; other pairs of the node go over {over}")
    elif unequal:
        imported.warn("no NVSwitch: a mesh of NVLinks, unequal between pairs")
    if len(host.domains) > 1:
        imported.warn(
            "one node is not one NVLink domain: moesim's node number means NVLink domain, "
            f"so this box is {in_words(len(host.domains))} nodes on one host"
        )


def _links(host: Host, imported: Imported, answers: Answers) -> None:
    for (one, other), count in host.nvlinks.items():
        rates: Facts = {"GBps": None}
        if host.link_rate is not None:
            each, ends = host.link_rate / 1e9, "" if other == "nvswitch" else ", both ends"
            rates = {"GBps": count * each, "GBps_from": f"{count} x {each:g} GB/s of {a_gpu(answers.gpu)}{ends}"}
        imported.link(one, other, "nvlink", count=count, **rates)
    for gpu, nics in imported.facts["nic_of_gpu"].items():
        for nic in nics or ():
            imported.link(gpu, nic, "pcie", distance=host.distance[gpu][nic], GBps=None)
    if len(host.domains) == 1:
        return
    imported.facts["nvlink_domains"] = host.domains
    bridges = list(dict.fromkeys(host.bridge.values()))
    host.bridge.update({gpu: f"host{bridges.index(at)}" for gpu, at in host.bridge.items()})
    for gpu, at in host.bridge.items():
        imported.link(gpu, at, "pcie", GBps=None)
    for i in range(len(bridges)):
        for j in range(i + 1, len(bridges)):
            imported.link(f"host{i}", f"host{j}", "smp", GBps=None)


def _not_in_file(host: Host, imported: Imported, tail: list[Tail], has_numa: bool) -> list[str]:
    if "ambiguous" in imported.facts:
        rack = "--nvlink-domain" in imported.asked or any(own is not None for _, _, own in tail)
        shown = f"size of the NVLink domain: the file shows one tray of {len(host.gpus)}, the rack has up to 72"
        return ["which NICs are compute", *([shown] if rack else [])]
    lines = ["gpu", "NIC rate", "PCIe rate"]
    if len(host.domains) == 1:
        return [*lines, "number of nodes", "fabric"]
    cpus = " and ".join(dict.fromkeys(cpus for cpus, _, _ in tail))
    return [*lines, "CPU interconnect rate", *([] if has_numa else [f"NUMA of GPUs (only CPU lists: {cpus})"])]
