"""What can be wrong with a list of devices and links, checked entry by entry.

Whether every rank reaches every other is known only once routes are built (``paths.check_connected``).
"""

from collections.abc import Iterator, Sequence

from moesim.cluster.devices import Device, Link
from moesim.mistakes import did_you_mean

MAX_EXPLICIT_GPUS = 1_024

Mistake = tuple[tuple[str | int, ...], str, str]


def explicit_mistakes(devices: Sequence[Device], links: Sequence[Link]) -> list[Mistake]:
    """Return every mistake as (place in the file, what, fix)."""
    names: dict[str, int] = {}
    mistakes: list[Mistake] = []
    for i, device in enumerate(devices):
        if device.name in names:
            what, fix = f"device {device.name} is listed twice", "give each device a name of its own"
            mistakes.append((("nodes", i, "name"), what, fix))
        names.setdefault(device.name, i)
    mistakes.extend(_gpu_mistakes(devices))
    mistakes.extend(_link_mistakes(links, list(names)))
    mistakes.extend(_port_mistakes(devices, links))
    return mistakes


def _gpu_mistakes(devices: Sequence[Device]) -> Iterator[Mistake]:
    gpus = [(i, device) for i, device in enumerate(devices) if device.type == "gpu"]
    if not gpus:
        yield ("nodes",), "there is no GPU", "list at least one device with type: gpu"
    if len(gpus) > MAX_EXPLICIT_GPUS:
        what = f"{len(gpus)} GPUs are more than the {MAX_EXPLICIT_GPUS} that may be listed"
        yield ("nodes",), what, "kind rail or leaf-spine describes larger clusters"
    for i, gpu in gpus:
        if gpu.node is None:
            yield ("nodes", i), f"GPU {gpu.name} has no node", "add node: N, its NVLink domain"
    used = sorted({gpu.node for _, gpu in gpus if gpu.node is not None})
    for number, node in enumerate(used):
        if node != number:
            i = next(i for i, gpu in gpus if gpu.node == node)
            fix = f"number the nodes of GPUs from 0 without a gap: 0 to {len(used) - 1}"
            yield ("nodes", i, "node"), f"there is a GPU in node {node} but none in node {number}", fix
            break


def _link_mistakes(links: Sequence[Link], names: list[str]) -> Iterator[Mistake]:
    known, seen = set(names), set[tuple[str, str]]()
    for i, link in enumerate(links):
        for end, name in (("source", link.source), ("target", link.target)):
            if name not in known:
                yield ("links", i, end), f"{name} is not a device", did_you_mean(name, names, "devices")
        if link.source == link.target:
            yield ("links", i), f"{link.source} is linked to itself", "remove the link"
            continue
        ways = _ways(link)
        repeated = next((way for way in ways if way in seen), None)
        if repeated is not None:
            fix = "keep one, with the sum of the bandwidths; both_ways, the default, is already two links"
            yield ("links", i), f"the link from {repeated[0]} to {repeated[1]} is listed twice", fix
        seen.update(ways)


def _port_mistakes(devices: Sequence[Device], links: Sequence[Link]) -> Iterator[Mistake]:
    ways = [way for link in links for way in _ways(link)]
    sending, receiving = {source for source, _ in ways}, {target for _, target in ways}
    gpus = [(i, device.name) for i, device in enumerate(devices) if device.type == "gpu"]
    for i, name in gpus if len(gpus) > 1 else ():
        lacking = [way for way, ends in (("out of", sending), ("into", receiving)) if name not in ends]
        if lacking:
            yield (("nodes", i, "name"), f"no link leads {' or '.join(lacking)} GPU {name}", "add one under links")


def _ways(link: Link) -> list[tuple[str, str]]:
    there, back = (link.source, link.target), (link.target, link.source)
    return [there, back] if link.both_ways else [there]
