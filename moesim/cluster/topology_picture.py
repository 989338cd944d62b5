"""A picture of a topology: nodes as boxes below, leaves and spines above, a line for each pair of devices.

Up to eight nodes of up to eight GPUs are drawn device by device; in larger clusters a node is one box, its
links to a switch are one line, and the middle of a long row is left out and counted instead.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from moesim.cluster.build import heights
from moesim.cluster.graph import LEAF_SPINE, NIC, NVLINK, Graph, build_graph
from moesim.cluster.topology_spec import AnyTopology
from moesim.errors import InputError
from moesim.units import format_bandwidth

MAX_NODES = MAX_GPUS = 8
MAX_SWITCHES = 16
COLOURS = {NVLINK: "#5f9e3f", NIC: "#2b6cb0", LEAF_SPINE: "#8a4fa3"}
OTHER_COLOURS = ("#111827", "#9ca3af", "#65a30d", "#f59e0b")
RAIL_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#b7791f", "#0f766e", "#9b2c2c")
NODE_GAP, LAYER_GAP, FIRST_LAYER = 0.9, 3.4, 4.4


@dataclass(frozen=True)
class _Shape:
    """A box of the picture, by its centre."""

    x: float
    y: float
    width: float
    height: float
    label: str
    fill: str


def draw(topology: AnyTopology, path: str | Path, title: str = "") -> Path:
    """Draw a topology to an SVG or PNG file and return its path.

    Args:
        topology: what ``read_topology`` returns.
        path: ends in .svg or .png; the folder exists.
        title: text above the picture; default the topology's own description.

    Raises:
        InputError: another kind of file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise InputError(f"cannot draw to {path.name!r:.80}", fix="end the name in .svg or .png")
    graph = build_graph(topology)
    shown = _shown_as(graph)
    shapes, notes, frames = _placed(graph, shown)
    right = max(shape.x + shape.width / 2 for shape in (*shapes.values(), *frames))
    top = max(shape.y for shape in shapes.values()) + 0.9
    with matplotlib.rc_context({"svg.hashsalt": "moesim", "svg.fonttype": "none"}):
        figure = Figure(figsize=(min(max(right * 0.3, 9.0), 18.0), 1.8 + top * 0.62), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlim=(-0.4, right + 0.4), ylim=(-1.3, top))
        axes.set_axis_off()
        axes.set_title(title or topology.description or topology.kind, fontsize=12, loc="left")
        for frame in frames:
            _add_box(axes, frame, edge="#a0aec0", bold=True)
        _add_links(axes, graph, shown, shapes)
        for shape in shapes.values():
            _add_box(axes, shape, edge="#2d3748")
        for x, y, text in notes:
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color="#4a5568", zorder=5)
        quiet = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=130, metadata=quiet)
    return path


def _shown_as(graph: Graph) -> dict[str, str | None]:
    """Return the shape that stands for each device: itself, its node, or None where it is left out."""
    nodes: dict[int, list[str]] = defaultdict(list)
    outside: dict[int, list[str]] = defaultdict(list)
    height = heights(graph)
    for device, about in graph.nodes.items():
        if about["node"] >= 0:
            nodes[about["node"]].append(device)
        else:
            outside[height.get(device, 1)].append(device)
    shown: dict[str, str | None] = {}
    largest = max(sum(graph.nodes[d]["kind"] == "gpu" for d in devices) for devices in nodes.values())
    whole = len(nodes) > MAX_NODES or largest > MAX_GPUS
    kept_nodes = set(_ends(sorted(nodes), MAX_NODES))
    for node, devices in nodes.items():
        for device in devices:
            shown[device] = (f"node {node}" if whole else device) if node in kept_nodes else None
    for layer in outside.values():
        kept = set(_ends(layer, MAX_SWITCHES))
        shown |= {device: device if device in kept else None for device in layer}
    return shown


def _ends(row: list[Any], most: int) -> list[Any]:
    """Return a row as it is, or its first entries and its last if it is longer than ``most``."""
    return row if len(row) <= most else [*row[: most - 2], row[-1]]


def _placed(
    graph: Graph, shown: dict[str, str | None]
) -> tuple[dict[str, _Shape], list[tuple[float, float, str]], list[_Shape]]:
    """Return the shapes by name, the notes (x, y, text) on what was left out, and the frames around nodes."""
    height = heights(graph)
    shapes: dict[str, _Shape] = {}
    notes: list[tuple[float, float, str]] = []
    frames: list[_Shape] = []
    members: dict[int, list[str]] = defaultdict(list)
    for device, about in graph.nodes.items():
        if about["node"] >= 0:
            members[about["node"]].append(device)
    x, left_out = 0.0, 0
    for node in sorted(members):
        gpus = [device for device in members[node] if graph.nodes[device]["kind"] == "gpu"]
        switches = [device for device in members[node] if device not in gpus]
        if shown[members[node][0]] is None:
            left_out += 1
            continue
        if left_out:
            notes.append((x + 1.0, 0.5, f"... {left_out} more ..."))
            x, left_out = x + 2.0 + NODE_GAP, 0
        if (name := f"node {node}") in shown.values():
            shapes[name] = _Shape(x + 1.3, 0.5, 2.6, 1.6, f"node {node}\n{len(gpus)} GPUs", "#edf2f7")
            x += 2.6 + NODE_GAP
            continue
        width = max(len(gpus), 2.8 * len(switches), 2.8)
        for i, gpu in enumerate(gpus):
            at = x + width * (i + 0.5) / len(gpus)
            shapes[gpu] = _Shape(at, 1.0, 0.8, 0.6, str(i), "#e2f0d9")
        for i, switch in enumerate(switches):
            at = x + width * (i + 0.5) / len(switches)
            shapes[switch] = _Shape(at, -0.1, 2.6, 0.5, switch.split(".")[-1], "#f7fafc")
        frames.append(_Shape(x + width / 2, 0.25, width + 0.4, 2.6, f"node {node}", "#f7fafc"))
        x += width + NODE_GAP
    _place_switches(graph, shown, height, x - NODE_GAP, shapes, notes)
    return shapes, notes, frames


def _place_switches(
    graph: Graph,
    shown: dict[str, str | None],
    height: dict[str, int],
    right: float,
    shapes: dict[str, _Shape],
    notes: list[tuple[float, float, str]],
) -> None:
    """Add the switches outside nodes, one row for each height above the GPUs."""
    layers: dict[int, list[str]] = defaultdict(list)
    for device, about in graph.nodes.items():
        if about["node"] < 0:
            layers[height.get(device, 1)].append(device)
    for level, devices in layers.items():
        kept = [device for device in devices if shown[device] is not None]
        y = FIRST_LAYER + LAYER_GAP * (level - 1)
        step = right / len(kept)
        for i, device in enumerate(kept):
            fill = "#dbeafe" if level == 1 else "#ede4f3"
            shapes[device] = _Shape(step * (i + 0.5), y, min(2.2, step * 0.9), 0.6, _label(device), fill)
        if len(kept) < len(devices):
            notes.append((step * (len(kept) - 1), y, f"{len(devices) - len(kept)} more"))


def _add_links(axes: Any, graph: Graph, shown: dict[str, str | None], shapes: dict[str, _Shape]) -> None:
    """Draw one line for each pair of shapes and link class, and explain the colours below."""
    from matplotlib.lines import Line2D

    capacities: dict[str, list[float]] = defaultdict(list)
    lines: dict[tuple[str, str, str], None] = {}
    for source, target, about in graph.edges(data=True):
        capacities[about["link_class"]].append(about["capacity"])
        ends = [end for end in (shown[source], shown[target]) if end is not None]
        if len(set(ends)) == 2:
            low, high = sorted(ends, key=lambda end: (shapes[end].y, shapes[end].x))
            lines[(low, high, about["link_class"])] = None
    others = cycle(OTHER_COLOURS)
    colour = {name: COLOURS.get(name) or next(others) for name in capacities}
    rail = {high: i for i, high in enumerate(dict.fromkeys(high for _, high, name in lines if name == NIC))}
    for low, high, name in lines:
        its_colour = RAIL_COLOURS[rail[high] % len(RAIL_COLOURS)] if name == NIC else colour[name]
        (x0, y0), (x1, y1) = _line_ends(shapes[low], shapes[high])
        axes.plot([x0, x1], [y0, y1], color=its_colour, linewidth=1.1, alpha=0.75, zorder=2)
    handles = [
        Line2D([], [], color=colour[name], linewidth=2, label=_legend_label(name, values))
        for name, values in capacities.items()
    ]
    axes.figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=10)


def _line_ends(low: _Shape, high: _Shape) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where a line leaves the one shape and meets the other: from top to bottom, or side to side."""
    if low.y == high.y:
        return (low.x + low.width / 2, low.y), (high.x - high.width / 2, high.y)
    return (low.x, low.y + low.height / 2), (high.x, high.y - high.height / 2)


def _label(device: str) -> str:
    """``rail0`` of ``rail0.leaf``, ``nic0`` of ``n1.nic0``."""
    first, _, last = device.partition(".")
    return last if last.startswith("nic") else first


def _legend_label(link_class: str, capacities: list[float]) -> str:
    low, high = format_bandwidth(min(capacities)), format_bandwidth(max(capacities))
    each = low if low == high else f"{low} to {high}"
    by_switch = ", coloured by switch" if link_class == NIC else ""
    return f"{link_class}: {len(capacities)} one-way links of {each}{by_switch}"


def _add_box(axes: Any, shape: _Shape, edge: str, bold: bool = False) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (shape.x - shape.width / 2, shape.y - shape.height / 2)
    axes.add_patch(
        FancyBboxPatch(
            corner,
            shape.width,
            shape.height,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=shape.fill,
            edgecolor=edge,
            linewidth=1.0,
            zorder=1 if bold else 3,
        )
    )
    y, weight = (corner[1] + 0.25, "bold") if bold else (shape.y, "normal")
    axes.text(shape.x, y, shape.label, ha="center", va="center", fontsize=9, fontweight=weight, zorder=4)
