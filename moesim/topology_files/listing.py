"""How a topology of moesim is written: rates, times, names, and one that lists its devices and links."""

import re
from collections.abc import Iterable

from moesim.topology_files.imported import Facts
from moesim.units import exact_duration

MAX_GPUS = 1_024
"""That may be listed one by one."""


def in_words(number: int) -> str:
    """Write a small number as a word."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
    return words[number] if number < len(words) else str(number)


def gbps(rate: float | None) -> str:
    """Write bytes/s as GB/s, six digits."""
    return f"{(rate or 0) / 1e9:.6g}GB/s"


def network_gbps(rate: float | None) -> str:
    """Write bytes/s of a network port as people name it: whole Gb/s, else GB/s."""
    bits = (rate or 0) * 8e-9
    return f"{bits:.0f}Gb/s" if abs(bits - round(bits)) < 1e-6 else gbps(rate)


def time_of(seconds: float) -> str:
    """Write a latency without the noise of sums."""
    return exact_duration(float(f"{seconds:.12g}"))


def device_name(name: str) -> str:
    """Write a name of the file as a topology may have it."""
    kept = re.sub(r"[^A-Za-z0-9_.-]", ".", name)
    return (kept if re.match(r"[A-Za-z0-9_]", kept) else f"x{kept}")[:48]


def cable(source: str, target: str, link_class: str, rate: str, latency: str = "", *, level: bool = False) -> Facts:
    """Return a link of an explicit topology, both ways; ``level``: no end is nearer to the GPUs, both send with it."""
    link = {"source": source, "target": target, "bandwidth": rate} | ({"latency": latency} if latency else {})
    return link | ({"latency_back": latency} if level and latency else {}) | {"class": link_class}


def explicit(gpu: str, devices: Iterable[tuple[str, str, int]], links: list[Facts]) -> Facts:
    """Return a topology of devices (type, name, node; -1 outside nodes) and links, listed in that order."""
    nodes = [{"name": name, "type": kind} | ({"node": node} if node >= 0 else {}) for kind, name, node in devices]
    return {"kind": "explicit", "gpu": gpu, "nodes": nodes, "links": links}
