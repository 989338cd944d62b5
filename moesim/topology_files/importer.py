"""Files of other tools to one topology: each is recognised by its content, several are one cluster."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moesim.cluster import build_fabric, checked_topology
from moesim.errors import InputError
from moesim.located_yaml import MANY_VALUES, parse_yaml
from moesim.topology_files.astra_sim import read_astra
from moesim.topology_files.file_text import read_text
from moesim.topology_files.host import Host
from moesim.topology_files.host_topology import host_topology
from moesim.topology_files.ibnetdiscover import read_ibnetdiscover
from moesim.topology_files.imported import Answers, Facts, Imported
from moesim.topology_files.nccl_graph import read_nccl_graph
from moesim.topology_files.nccl_xml import read_nccl_xml
from moesim.topology_files.nvidia_smi import read_topo_m
from moesim.topology_files.simai import read_simai

_HOSTS = {"nvidia-smi topo -m": read_topo_m, "NCCL topology XML": read_nccl_xml}
_WHOLE = {"ASTRA-sim network.yml": read_astra, "SimAI topology": read_simai}


def import_topology(paths: Sequence[Path], answers: Answers) -> Imported:
    """Read files of one cluster: hosts alike, hosts and their InfiniBand fabric, or one file of a simulator.

    Args:
        paths: the files.
        answers: what they do not say.

    Raises:
        InputError: a file of no known form or with mistakes; files that are not of one cluster.
    """
    answers = replace(answers, gpu=answers.gpu.lower())
    hosts: list[tuple[Imported, Host, Path]] = []
    fabric: tuple[str, str] | None = None
    for path in paths:
        form, text = read_text(path)
        if form == "ibdiagnet2.net_dump":
            raise InputError("ibdiagnet2.net_dump is not read", str(path), "give the output of ibnetdiscover")
        if form in _HOSTS:
            hosts.append((*_HOSTS[form](text, str(path), answers), path))
        elif form == "ibnetdiscover" and fabric is None:
            fabric = text, str(path)
        elif len(paths) > 1:
            raise InputError(
                f"{form} is one whole file", str(path), "give it alone; hosts and ibnetdiscover go together"
            )
        elif form == "NCCL graph XML":
            return read_nccl_graph(text, str(path))
        else:
            return _WHOLE[form](text, str(path), answers)
    for _, host, path in hosts[1:]:
        if _shape(host) != _shape(hosts[0][1]):
            what = f"is another host than {hosts[0][2]}: other GPUs, NICs or NVLinks"
            raise InputError(what, str(path), "regular clusters have hosts alike: import each by itself")
    if fabric is not None:
        own = hosts[0][1] if hosts else None
        imported = read_ibnetdiscover(*fabric, answers, own)
        if hosts:
            imported.facts["host"] = hosts[0][0].facts
            imported.asked |= {key: what for key, what in hosts[0][0].asked.items() if key == "--nic-map"}
        return imported
    imported, host, _ = hosts[0]
    host_topology(host, imported, answers, len(hosts))
    return imported


def _shape(host: Host) -> tuple[Any, ...]:
    return host.gpus, host.distance, host.switch_links, host.pairs, host.nic_rate


def topology_yaml(imported: Imported, where: str) -> str:
    """Return the topology file, each number's source beside it, once it is known to be one.

    Raises:
        InputError: answers are missing, no topology can be made, or moesim cannot hold it.
    """
    spec, facts, sources = imported.complete(where), imported.facts, imported.sources
    notes = filter(None, [*facts["warnings"], facts.get("moesim_note")])
    lines = [f"# From {facts['format']} by moesim topo import; peaks of one direction."]
    lines += [f"# Note: {' '.join(str(line).split())}" for line in notes]
    for key, value in spec.items():
        comment = f"  # {sources[key]}" if key in sources else ""
        if key == "links":
            of_links = ("nvlink", "pcie", "nic", "latency")
            lines += [f"# {each}: {sources[each]}" for each in of_links if each in sources]
        if isinstance(value, list):
            lines += [f"{key}:{comment}", *(f"  - {_flow(entry)}" for entry in value)]
        else:
            lines.append(f"{key}: {_flow(value)}{comment}")
    text = "\n".join(lines) + "\n"
    build_fabric(checked_topology(parse_yaml(text, where, MANY_VALUES)), name=Path(where).stem, where=where)
    return text


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    plain = not isinstance(value, str) or re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*|[0-9.e+-]+[A-Za-z/]+", value)
    return str(value) if plain and value not in ("true", "false", "null", "NaN") else json.dumps(value)


def facts_of(imported: Imported) -> Facts:
    """Return all that a file gave as JSON: facts, the topology, where its numbers are from, and what is asked."""
    spec = imported.spec if not imported.asked else None
    return imported.facts | {"moesim": spec, "sources": imported.sources, "asked": imported.asked}
