"""``nvidia-smi topo -m``: a matrix of how GPUs and NICs of one host reach each other.

Cells are read by count after the row's label, not by position; glued ones are cut by the known names. NIC rows
check the GPU rows. GPU model, rates and the number of nodes are not in it.
"""

import re

from moesim.errors import InputError
from moesim.topology_files.file_text import MAX_DEVICES
from moesim.topology_files.host import Host, pair_nics
from moesim.topology_files.imported import NVLINKS, Answers, Facts, Imported, a_gpu

_CELL = re.compile(r"\s*(X|NV(?:1[0-8]|[1-9])|PIX|PXB|PHB|NODE|SYS|SOC)")
_LEGEND = re.compile(r"^\s*(NIC\d+):\s+(\S+)\s*$", re.MULTILINE)
MAX_COLUMNS = 256


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
    rows: dict[str, list[str]] = {}
    tails: dict[str, str] = {}
    for number, line in enumerate(lines[start + 1 : start + 1 + MAX_DEVICES], start + 2):
        label = line.split(maxsplit=1)[0] if line.strip() else ""
        if label in columns and label not in rows:
            rows[label], tails[label] = _cells(line, label, columns, f"{where}:{number}")
        elif label in columns or label == "GPU0":
            break
    label_of = dict(_LEGEND.findall(text))
    gpus = [name for name in columns if re.fullmatch(r"GPU\d+", name)]
    lost = [name for name in gpus if name not in rows]
    if lost:
        raise InputError(f"the row of {lost[0]} is missing", where, "give the whole matrix")
    nic_names = [name for name in columns if name not in gpus]
    _check_symmetry(columns, rows, where)
    cell = {one: dict(zip(columns, row, strict=True)) for one, row in rows.items()}
    named = {name: name.lower() for name in gpus} | {name: label_of.get(name, name) for name in nic_names}
    host = Host(
        gpus=[named[name] for name in gpus],
        nics=[named[name] for name in nic_names],
        distance={named[gpu]: {named[nic]: _near(cell[gpu][nic]) for nic in nic_names} for gpu in gpus},
        functions=[
            (named[one], named[other])
            for i, one in enumerate(nic_names)
            for other in nic_names[i + 1 :]
            if one in cell and cell[one][other] == "PIX"
        ],
    )
    imported = Imported({"format": "nvidia-smi topo -m", "devices": [], "links": [], "warnings": []})
    tail = {named[name]: _tail(tails[name], head) for name in gpus}
    matrix = {(named[a], named[b]): cell[a][b] for i, a in enumerate(gpus) for b in gpus[i + 1 :]}
    _nvlinks(host, matrix, imported, answers)
    devices: list[Facts] = imported.facts["devices"]
    for gpu in host.gpus:
        cpus, numa, own = tail[gpu]
        devices.append({"name": gpu, "kind": "gpu", "numa": numa} | ({} if own is None else {"gpu_numa_id": own}))
        host.bridge[gpu] = numa or cpus or "host"
    if host.switch_links:
        devices.append({"name": "nvswitch", "kind": "switch"})
    pair_nics(host, imported, answers)
    facts = imported.facts
    unknown = "ambiguous" in facts
    if unknown and len(host.gpus) == 4 and host.switch_links and any(own is not None for _, _, own in tail.values()):
        count = next(iter(host.switch_links.values()))
        imported.warn(f"4 GPUs with NV{count} and a GPU NUMA ID: probably a tray of a larger NVLink domain")
        if answers.nvlink_domain is None:
            imported.ask("--nvlink-domain", "GPUs that NVLink joins, such as 72: the file may show one tray of a rack")
    for nic in host.nics:
        known = None if unknown else nic not in facts["not_compute"]
        devices.append({"name": nic, "kind": "nic", "compute": known})
    for one, other in host.functions:
        if not unknown and any(nic not in facts["not_compute"] for nic in (one, other)):
            continue
        if unknown:
            imported.warn(f"{one} and {other} are two functions of one card (PIX): probably a DPU")
    if not unknown:
        near_nothing = [nic for nic in facts["not_compute"] if not any(nic in pair for pair in host.functions)]
        imported.warn(*(f"{nic} is nearest to no GPU: not compute" for nic in near_nothing))
    _links(host, imported, answers)
    facts["not_in_file"] = _not_in_file(host, imported, tail, "NUMA Affinity" in head)
    return imported, host


def _cells(line: str, label: str, columns: list[str], where: str) -> tuple[list[str], str]:
    at, cells = line.index(label) + len(label), list[str]()
    for column in columns:
        found = _CELL.match(line, at)
        if found is None:
            what = f"row {label} has {len(cells)} cells for {len(columns)} columns: none known for {column}"
            raise InputError(
                what, where, f"{line[at : at + 12].strip()!r} stands there; give the matrix as it was printed"
            )
        cells.append(found[1])
        at = found.end()
    if _CELL.match(line, at):
        raise InputError(f"row {label} has more cells than the {len(columns)} columns", where, "give the whole matrix")
    return cells, line[at:]


def _near(cell: str) -> str:
    return {"SOC": "SYS", "X": "PIX"}.get(cell, cell)


def _check_symmetry(columns: list[str], rows: dict[str, list[str]], where: str) -> None:
    for i, one in enumerate(columns):
        for j, other in enumerate(columns):
            if one in rows and other in rows and rows[one][j] != rows[other][i]:
                what = f"row {one} says {rows[one][j]} for {other}, row {other} says {rows[other][i]} for {one}"
                raise InputError(what, where, "give the matrix as it was printed")


def _tail(text: str, head: str) -> tuple[str, str | None, int | None]:
    """CPU list, NUMA list and the GPU's own NUMA node of the columns behind the matrix."""
    has_numa, parts = "NUMA Affinity" in head, text.split()
    own = parts.pop() if "GPU NUMA ID" in head and len(parts) > 1 else "N/A"
    cpus = parts[0] if parts else ""
    numa = parts[1] if has_numa and len(parts) > 1 else None
    if has_numa and numa is None:
        cpus, numa = _unglued(cpus)
    return cpus, numa, int(own) if own.isdecimal() and len(own) < 6 else None


def _unglued(cpus: str) -> tuple[str, str | None]:
    """Cut ``0-45,92-1370`` into CPUs ``0-45,92-137`` and NUMA node ``0``: ranges of hyper-threads are equally long."""
    ranges = [part.split("-") for part in cpus.split(",")]
    if len(ranges) < 2 or any(
        len(ends) != 2 or not all(end.isdecimal() and len(end) < 9 for end in ends) for ends in ranges
    ):
        return cpus, None
    long = int(ranges[0][1]) - int(ranges[0][0])
    begin, end = ranges[-1]
    for digits in range(1, len(end)):
        if int(end[:-digits]) - int(begin) == long:
            return cpus[:-digits], cpus[-digits:]
    return cpus, None


def _nvlinks(host: Host, matrix: dict[tuple[str, str], str], imported: Imported, answers: Answers) -> None:
    counts = {pair: int(cell[2:]) for pair, cell in matrix.items() if cell.startswith("NV")}
    each, most = NVLINKS.get(answers.gpu, (0.0, 0))
    host.link_rate = each * 1e9 or None
    if not counts:
        if len(host.gpus) > 1:
            imported.warn("no NVLink between GPUs: every pair goes over PCIe")
        return
    count = next(iter(counts.values()))
    all_alike = len(counts) == len(matrix) and len(set(counts.values())) == 1 and len(host.gpus) > 2
    meshed = most and count < most and count * (len(host.gpus) - 1) <= most
    if all_alike and not meshed:
        if most and count > most:
            peak = f"{each * most:g} GB/s"
            imported.warn(f"NV{count}, but {a_gpu(answers.gpu)} has {most} NVLinks: capped at its {peak}")
            count = most
        host.switch_links = dict.fromkeys(host.gpus, count)
        return
    host.pairs = counts
    if all(len(domain) <= 2 for domain in host.domains) and len(host.domains) > 1:
        other = sorted(
            {cell for cell in matrix.values() if not cell.startswith("NV")},
            key=("PIX", "PXB", "PHB", "NODE", "SYS").index,
        )
        over = " or ".join(f"the CPU interconnect ({cell})" if cell == "SYS" else f"PCIe ({cell})" for cell in other)
        imported.warn(f"no NVSwitch: {count} NVLinks join pairs only; other pairs of the node go over {over}")
    elif len(counts) < len(matrix) or len(set(counts.values())) > 1:
        imported.warn("no NVSwitch: a mesh of NVLinks, unequal between pairs")
    if len(host.domains) > 1:
        number = {2: "two", 3: "three", 4: "four", 8: "eight"}.get(len(host.domains), str(len(host.domains)))
        imported.warn(
            "one node is not one NVLink domain: moesim's node number means NVLink domain, "
            f"so this box is {number} nodes on one host"
        )


def _links(host: Host, imported: Imported, answers: Answers) -> None:
    links: list[Facts] = imported.facts["links"]
    joined = {(gpu, "nvswitch"): count for gpu, count in host.switch_links.items()} | host.pairs
    for (one, other), count in joined.items():
        link = {"source": one, "target": other, "class": "nvlink", "count": count, "GBps": None}
        if host.link_rate is not None:
            each, ends = host.link_rate / 1e9, "" if other == "nvswitch" else ", both ends"
            link |= {"GBps": count * each, "GBps_from": f"{count} x {each:g} GB/s of {a_gpu(answers.gpu)}{ends}"}
        links.append(link)
    for gpu, nics in imported.facts["nic_of_gpu"].items():
        for nic in nics or ():
            near = host.distance[gpu][nic]
            links.append({"source": gpu, "target": nic, "class": "pcie", "distance": near, "GBps": None})
    if len(host.domains) == 1:
        return
    imported.facts["nvlink_domains"] = host.domains
    bridges = list(dict.fromkeys(host.bridge.values()))
    host.bridge.update({gpu: f"host{bridges.index(at)}" for gpu, at in host.bridge.items()})
    links.extend({"source": gpu, "target": at, "class": "pcie", "GBps": None} for gpu, at in host.bridge.items())
    for i in range(len(bridges)):
        links.extend(
            {"source": f"host{i}", "target": f"host{j}", "class": "smp", "GBps": None}
            for j in range(i + 1, len(bridges))
        )


def _not_in_file(
    host: Host, imported: Imported, tail: dict[str, tuple[str, str | None, int | None]], has_numa: bool
) -> list[str]:
    if "ambiguous" in imported.facts:
        lines = ["which NICs are compute"]
        if "--nvlink-domain" in imported.asked or any(own is not None for _, _, own in tail.values()):
            shown = f"the file shows one tray of {len(host.gpus)}, the rack has up to 72"
            lines.append(f"size of the NVLink domain: {shown}")
        return lines
    lines = ["gpu", "NIC rate", "PCIe rate"]
    if len(host.domains) > 1:
        lines.append("CPU interconnect rate")
        if not has_numa:
            cpus = dict.fromkeys(cpus for cpus, _, _ in tail.values())
            lines.append(f"NUMA of GPUs (only CPU lists: {' and '.join(cpus)})")
        return lines
    return [*lines, "number of nodes", "fabric"]
