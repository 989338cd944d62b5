"""From a topology of moesim to another tool's file; what the form cannot hold is said.

ASTRA-sim's form has no spines: leaves that spines join become rails that nothing joins. NCCL's XML is one host; its
PCIe links are the slowest x16 that the cards need where the topology gives none.
"""

from collections.abc import Sequence
from typing import Any

from moesim.cluster import HgxTopology
from moesim.errors import InputError
from moesim.topology_files.link_rates import NVLINKS, PCIE, a_gpu, pcie_peak
from moesim.topology_files.nccl_xml import compute_capability

FORMS = ("astra-sim", "nccl-xml")


def export_topology(spec: Any, form: str, name: str) -> tuple[str, list[str]]:
    """Return the file's text and what it does not hold.

    Args:
        spec: a topology as it was read, of a regular kind.
        form: ``astra-sim`` or ``nccl-xml``.
        name: of the topology.

    Raises:
        InputError: an unknown form, or a topology that it cannot hold.
    """
    if form not in FORMS:
        raise InputError(f"unknown form {form!r:.40}", "--form", f"forms: {', '.join(FORMS)}")
    if spec.kind == "explicit":
        raise InputError(f"{name} lists its links one by one: not in {form}", "--form", "export a regular kind")
    cards = None if spec.nic is None else spec.nic.cards(spec.gpus_per_node)
    if form == "nccl-xml":
        return _nccl(spec, cards or [(gpu,) for gpu in range(spec.gpus_per_node)], shared=cards is not None)
    if cards is not None:
        raise InputError(f"GPUs of {name} share NICs, {form} cannot say which", "--form", "export a NIC for each GPU")
    return _astra(spec)


def _astra(spec: Any) -> tuple[str, list[str]]:
    inside = spec.nvlink or spec.pcie
    dimensions = [(spec.gpus_per_node, inside.bandwidth, getattr(inside, "latency", 0.0))]
    lost = [f"{spec.pcie.hosts} host bridges of a node"] if spec.pcie is not None and spec.pcie.hosts > 1 else []
    if not isinstance(spec, HgxTopology):
        dimensions.append((spec.nodes, spec.nic.per_gpu_bandwidth(spec.gpus_per_node), spec.nic.latency))
        if spec.kind != "multi-plane" or spec.nodes > spec.nodes_per_leaf:
            lost.append("spines: dimension 1 is one switch for each index in the node, and nothing joins those")
    elif spec.nic is not None:
        lost.append("NICs, which a single node does not use")
    if any(count < 2 for count, _, _ in dimensions):
        raise InputError("a dimension of one NPU", "--form", "astra-sim needs two or more GPUs and nodes")
    counts, rates, delays = zip(*dimensions, strict=True)
    lines = [
        f"topology: [ {', '.join(['Switch'] * len(counts))} ]",
        f"npus_count: [ {', '.join(map(str, counts))} ]",
        f"bandwidth: [ {', '.join(repr(rate / 2**30) for rate in rates)} ]  # 2^30 bytes/s",
        f"latency: [ {', '.join(repr(float(f'{delay * 5e8:.12g}')) for delay in delays)} ]  # ns of one link",
    ]
    return "\n".join([*(f"# not held: {line}" for line in lost), *lines]) + "\n", lost


def _nccl(spec: Any, groups: Sequence[tuple[int, ...]], *, shared: bool) -> tuple[str, list[str]]:
    """A PCIe switch for each group of GPUs with its cards."""
    lost = [] if isinstance(spec, HgxTopology) else [f"{spec.nodes} nodes and their fabric: the file is one host"]
    each, _ = NVLINKS.get(spec.gpu, (0.0, 0))
    links = spec.nvlink.bandwidth / (each * 1e9) if each and spec.nvlink else 0.0
    sm = compute_capability(spec.gpu)
    if sm is None or (spec.nvlink is not None and (not links or abs(links - round(links)) > 1e-6)):
        rate = f"{spec.nvlink.bandwidth / 1e9:g} GB/s are no whole NVLinks" if spec.nvlink else "nothing is known"
        fix = f"NCCL's file counts links; GPUs known: {', '.join(NVLINKS)}"
        raise InputError(f"{rate} of {a_gpu(spec.gpu)}", "--form", fix)
    nic, pcie = spec.nic, spec.pcie
    per_gpu = 0 if nic is None else nic.per_gpu if nic.per_node is None else nic.per_node // spec.gpus_per_node
    count = 1 if shared else per_gpu
    need = pcie.bandwidth if pcie is not None else 0.0 if nic is None else nic.pcie or nic.card_bandwidth
    speed = next((gt for gt in PCIE if gt > 2.5 and pcie_peak(gt, 16) >= 0.999 * need), 64.0)
    lost.append(f"PCIe: assumed {speed:g} GT/s x16")
    wide = f'link_speed="{speed:.1f} GT/s PCIe" link_width="16"'
    nvlink = [f'          <nvlink target="fffffff:ffff:ff" count="{round(links)}" tclass="0x068000"/>'] * (links > 0)
    about = 'arch="x86_64" vendor="GenuineIntel" familyid="6" modelid="143"'
    hosts = pcie.hosts if pcie is not None else 1
    rows, last = list[str](), -1
    for number, gpus in enumerate(groups):
        host = number * hosts // len(groups)
        if host != last:
            numa = host if hosts > 1 else -1
            rows += ["  </cpu>"] * (last >= 0) + [f'  <cpu numaid="{numa}" {about}>']
            last = host
        rows.append(f'    <pci busid="{number:04x}:10:00.0" class="0x060400" {wide}>')
        for slot, gpu in enumerate(gpus):
            rows.append(f'      <pci busid="{number:04x}:{0x20 + slot:02x}:00.0" class="0x030200" {wide}>')
            rows.append(f'        <gpu dev="{gpu}" sm="{sm}" rank="{gpu}" gdr="1">')
            rows += [*nvlink, "        </gpu>", "      </pci>"]
        for card in range(count):
            dev = number * count + card
            rows.append(f'      <pci busid="{number:04x}:{0x12 + card:02x}:00.0" class="0x020700" {wide}>')
            speed_of = f'speed="{round(nic.card_bandwidth * 8e-6)}" port="1" guid="{hex(dev + 1)}" gdr="1"'
            rows += [f'        <nic><net name="mlx5_{dev}" dev="{dev}" {speed_of}/></nic>', "      </pci>"]
        rows.append("    </pci>")
    notes = [f"<!-- not held or assumed: {line} -->" for line in [f"GPU {spec.gpu}", *lost]]
    return "\n".join([*notes, '<system version="1">', *rows, "  </cpu>", "</system>"]) + "\n", lost
