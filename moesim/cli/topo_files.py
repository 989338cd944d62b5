"""``moesim topo import`` and ``topo export``: topology files of other tools."""

import json
from pathlib import Path

import typer


def topo_import(
    files: list[Path] = typer.Argument(..., help="Files of one cluster: hosts alike, and its ibnetdiscover."),
    out: Path | None = typer.Option(None, "--out", help="Topology file to write."),
    gpu: str = typer.Option("", "--gpu", help="GPU model, such as h100."),
    nic: str = typer.Option("", "--nic", help="Rate of a NIC: 400Gb/s."),
    nvlink: str = typer.Option("", "--nvlink", help="NVLink rate of a GPU, one direction: 450GB/s."),
    pcie: str = typer.Option("", "--pcie", help="PCIe link of a GPU: gen5 x16, or a rate."),
    smp: str = typer.Option("", "--smp", help="Rate between host bridges (CPUs): 20GB/s."),
    nic_map: str = typer.Option("", "--nic-map", help="NIC of each GPU, by commas: mlx5_0,mlx5_3."),
    nvlink_domain: int | None = typer.Option(None, "--nvlink-domain", min=1, max=1024, help="GPUs that NVLink joins."),
    gpus_per_node: int | None = typer.Option(None, "--gpus-per-node", min=1, max=1024, help="GPUs of a host."),
    nodes: int | None = typer.Option(None, "--nodes", min=1, max=8192, help="Hosts like the one in the file."),
    fabric: str = typer.Option("", "--fabric", help="How several nodes are joined: one-leaf, rail or leaf-spine."),
    spines: int | None = typer.Option(None, "--spines", min=1, max=1024, help="Spine switches of that fabric."),
    nodes_per_leaf: int | None = typer.Option(None, "--nodes-per-leaf", min=1, max=8192, help="Of leaf-spine."),
    as_json: bool = typer.Option(False, "--json", help="Print all that the files say as JSON."),
) -> None:
    """Make a topology of nvidia-smi topo -m, NCCL XML, ibnetdiscover, ASTRA-sim or SimAI files.

    Example: moesim topo import node.txt --gpu h100 --nic 400Gb/s --out node.yaml
    """
    from moesim.errors import InputError
    from moesim.files import check_replaceable, marked, write_files
    from moesim.topology_files import Answers, facts_of, import_topology, parse_pcie, topology_yaml
    from moesim.units import parse_bandwidth, parse_nic_bandwidth

    if fabric not in ("", "one-leaf", "rail", "leaf-spine"):
        raise InputError(f"unknown fabric {fabric!r:.40}", "--fabric", "one-leaf, rail or leaf-spine")
    check_replaceable(out, "topology")
    rates = {}
    readers = {"nic": parse_nic_bandwidth, "pcie": parse_pcie}
    for option, text in (("nic", nic), ("nvlink", nvlink), ("pcie", pcie), ("smp", smp)):
        try:
            rates[option] = readers.get(option, parse_bandwidth)(text) if text else None
        except InputError as error:
            raise InputError(error.what, f"--{option}", error.fix) from None
    answers = Answers(
        gpu=gpu,
        nic_map=tuple(name.strip() for name in nic_map.split(",")) if nic_map else (),
        nvlink_domain=nvlink_domain,
        gpus_per_node=gpus_per_node,
        nodes=nodes,
        fabric=fabric,
        spines=spines,
        nodes_per_leaf=nodes_per_leaf,
        **rates,
    )
    imported = import_topology(files, answers)
    made = topology_yaml(imported, str(files[0])) if out is not None or not as_json else ""
    if as_json:
        typer.echo(json.dumps(facts_of(imported), indent=1))
    else:
        typer.echo(made, nl=False)
    if out is not None:
        write_files(out.parent, {out.name: marked("topology", made.encode())})
        typer.echo(str(out), err=as_json)


def topo_export(
    topology: str = typer.Argument(..., help="Name or path of a topology."),
    form: str = typer.Option(..., "--form", help="astra-sim or nccl-xml."),
    out: Path = typer.Option(..., "--out", help="File to write."),
) -> None:
    """Write a topology as ASTRA-sim's network.yml or NCCL's topology XML (one node).

    Example: moesim topo export hgx-h100 --form nccl-xml --out topo.xml
    """
    from moesim.cluster import find_topology, read_topology
    from moesim.files import check_replaceable, marked, write_files
    from moesim.topology_files import export_topology

    text, lost = export_topology(read_topology(find_topology(topology)), form, topology)
    check_replaceable(out, f"topology in {form}")
    for line in lost:
        typer.echo(f"not held or assumed: {line}", err=True)
    write_files(out.parent, {out.name: marked(f"topology in {form}", text.encode())})
    typer.echo(str(out))
