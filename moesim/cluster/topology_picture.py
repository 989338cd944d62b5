"""A picture of a topology: nodes as boxes below, leaves and spines above, a line for each pair of devices.

Up to eight nodes of up to eight GPUs are drawn device by device; in larger clusters a node is one box, its
links to a switch are one line, and the middle of a long row is left out and counted instead.

A map colours boxes and lines by a number of each device and link; where one stands for several, by the largest. Of a
long row it has those with the largest.
"""

import io
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

from moesim.cluster.build import heights
from moesim.cluster.graph import LEAF_SPINE, NIC, NVLINK, Graph, build_graph
from moesim.cluster.topology_spec import AnyTopology
from moesim.errors import InputError
from moesim.files import write_files
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


class _Picture:
    """Boxes by name, notes (x, y, text) on what was left out, frames around nodes; what stands for each device."""

    def __init__(self, graph: Graph, heat: Mapping[str, float]) -> None:
        self.graph = graph
        self.heat: dict[str, float] = defaultdict(float)
        """Largest number of each device and of its links."""
        for name, value in heat.items():
            for device in name.split("->"):
                self.heat[device] = max(self.heat[device], value)
        self.shapes: dict[str, _Shape] = {}
        self.notes: list[tuple[float, float, str]] = []
        self.frames: list[_Shape] = []
        self.shown: dict[str, str | None] = {}
        """Device to its box, its node's, or None where it is left out."""
        nodes: dict[int, list[str]] = defaultdict(list)
        layers: dict[int, list[str]] = defaultdict(list)
        height = heights(graph)
        for device, node in graph.nodes(data="node"):
            if node >= 0:
                nodes[node].append(device)
            else:
                layers[height.get(device, 1)].append(device)
        self.right = self._place_nodes(nodes)
        for level, layer in enumerate(layers[height] for height in sorted(layers)):
            self._place_switches(level, layer)

    def _place_nodes(self, nodes: dict[int, list[str]]) -> float:
        gpus = {node: [one for one in nodes[node] if self.graph.nodes[one]["kind"] == "gpu"] for node in sorted(nodes)}
        whole = len(nodes) > MAX_NODES or max(map(len, gpus.values())) > MAX_GPUS
        kept = _kept({node: max(self.heat[device] for device in nodes[node]) for node in gpus}, MAX_NODES)
        x, last = 0.0, -1
        for node in kept:
            name, own = f"node {node}", gpus[node]
            if left_out := node - last - 1 if len(kept) < len(gpus) else 0:
                self.notes.append((x + 1.0, 0.5, f"... {left_out} more ..."))
                x += 2.0 + NODE_GAP
            last = node
            if whole:
                self.shapes[name] = _Shape(x + 1.3, 0.5, 2.6, 1.6, f"{name}\n{len(own)} GPUs", "#edf2f7")
                x += 2.6 + NODE_GAP
                continue
            switches = [device for device in nodes[node] if device not in own]
            width = max(len(own), 2.8 * len(switches), 2.8)
            for row, y, wide, tall, fill in ((own, 1.0, 0.8, 0.6, "#e2f0d9"), (switches, -0.1, 2.6, 0.5, "#f7fafc")):
                for i, device in enumerate(row):
                    label = str(i) if row is own else device.split(".")[-1]
                    self.shapes[device] = _Shape(x + width * (i + 0.5) / len(row), y, wide, tall, label, fill)
            self.frames.append(_Shape(x + width / 2, 0.25, width + 0.4, 2.6, name, "#f7fafc"))
            x += width + NODE_GAP
        for node, devices in nodes.items():
            box = f"node {node}" if whole else None
            self.shown |= {device: (box or device) if node in kept else None for device in devices}
        return x - NODE_GAP

    def _place_switches(self, level: int, devices: list[str]) -> None:
        """Add the switches outside nodes of one height above the GPUs."""
        kept = _kept({device: self.heat[device] for device in devices}, MAX_SWITCHES)
        y = FIRST_LAYER + LAYER_GAP * level
        step = self.right / len(kept)
        for i, device in enumerate(kept):
            fill = "#ede4f3" if level else "#dbeafe"
            self.shapes[device] = _Shape(step * (i + 0.5), y, min(2.2, step * 0.9), 0.6, _label(device), fill)
        self.shown |= {device: device if device in kept else None for device in devices}
        if len(kept) < len(devices):
            self.notes.append((step * (len(kept) - 1), y, f"{len(devices) - len(kept)} more"))


class Heat:
    """A map's colours.

    Args:
        values: by device (``rail0.leaf``) and link (``n0.gpu0->rail0.leaf``); infinite for what is beyond the scale.
        label: what they are, with their unit.
        beyond: what is infinite, in words.
    """

    UNKNOWN, BEYOND = "#e5e7eb", "#b2182b"

    def __init__(self, values: Mapping[str, float], label: str, beyond: str) -> None:
        from matplotlib import colormaps
        from matplotlib.colors import Normalize

        self.values, self.label, self.beyond = values, label, beyond
        top = max((value for value in values.values() if math.isfinite(value)), default=0.0)
        self.scale, self.colours = Normalize(0.0, top or 1.0), colormaps["cividis"]

    def colour(self, *names: str) -> str:
        """Return the colour of the largest value of some devices or links."""
        from matplotlib.colors import to_hex

        known = [self.values[name] for name in names if name in self.values]
        if not known:
            return self.UNKNOWN
        return self.BEYOND if math.isinf(most := max(known)) else to_hex(self.colours(self.scale(max(most, 0.0))))

    def explain(self, figure: Any, axes: Any) -> None:
        """Add the scale to a figure."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.patches import Patch

        scale = ScalarMappable(self.scale, self.colours)
        figure.colorbar(scale, ax=axes, orientation="horizontal", fraction=0.04, pad=0.01, aspect=60, label=self.label)
        beyond = [Patch(color=self.BEYOND, label=self.beyond)] if math.inf in self.values.values() else []
        handles = [Patch(color=self.UNKNOWN, label="not tried, or carries nothing"), *beyond]
        figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=10)


def draw(topology: AnyTopology, path: str | Path, title: str = "", heat: Heat | None = None) -> Path:
    """Draw a topology to an SVG or PNG file and return its path.

    Args:
        topology: what ``read_topology`` returns.
        path: ends in .svg or .png.
        title: text above the picture; default the topology's own description.
        heat: colours, for a map; boxes and lines have ids in an SVG then, the names of their devices.

    Raises:
        InputError: another kind of file.
        ResourceError: it cannot be written, or somebody else's picture is there.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise InputError(f"cannot draw to {path.name!r:.80}", fix="end the name in .svg or .png")
    picture = _Picture(build_graph(topology), {} if heat is None else heat.values)
    right = max(shape.x + shape.width / 2 for shape in (*picture.shapes.values(), *picture.frames))
    top = max(shape.y for shape in picture.shapes.values()) + 0.9
    with matplotlib.rc_context({"svg.hashsalt": "moesim", "svg.fonttype": "none"}):
        figure = Figure(figsize=(min(max(right * 0.3, 9.0), 18.0), 1.8 + top * 0.62), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlim=(-0.4, right + 0.4), ylim=(-1.3, top))
        axes.set_axis_off()
        axes.set_title(title or topology.description or topology.kind, fontsize=12, loc="left")
        for frame in picture.frames:
            _add_box(axes, frame, edge="#a0aec0", bold=True)
        _add_links(axes, picture, heat)
        behind: dict[str | None, list[str]] = defaultdict(list)
        for device, box in picture.shown.items():
            behind[box].append(device)
        for name, shape in picture.shapes.items():
            shaded = shape if heat is None else replace(shape, fill=heat.colour(*behind[name]))
            _add_box(axes, shaded, edge="#2d3748", gid=name if heat else None)
        for x, y, text in picture.notes:
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color="#4a5568", zorder=5)
        quiet = {"Date": None, "Creator": "moesim"} if path.suffix == ".svg" else {"Software": "moesim"}
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix[1:], dpi=130, metadata=quiet)
    write_files(path.parent, {path.name: content.getvalue()})
    return path


def _kept(heat: Mapping[Any, float], most: int) -> list[Any]:
    """Return a row, or if it is longer than ``most`` its hottest entries, the first of equal ones, and its last."""
    row = list(heat)
    hottest = sorted(row[:-1], key=heat.__getitem__, reverse=True)[: most - 2]
    return row if len(row) <= most else [one for one in row if one in {*hottest, row[-1]}]


def _add_links(axes: Any, picture: _Picture, heat: Heat | None) -> None:
    """Draw one line for each pair of shapes and link class, and explain the colours below."""
    from matplotlib.lines import Line2D

    capacities: dict[str, list[float]] = defaultdict(list)
    lines: dict[tuple[str, str, str], list[str]] = {}
    for source, target, about in picture.graph.edges(data=True):
        capacities[about["link_class"]].append(about["capacity"])
        ends = {end for end in (picture.shown[source], picture.shown[target]) if end is not None}
        if len(ends) == 2:
            low, high = sorted(ends, key=lambda end: (picture.shapes[end].y, picture.shapes[end].x))
            lines.setdefault((low, high, about["link_class"]), []).append(f"{source}->{target}")
    others = cycle(OTHER_COLOURS)
    colour = {name: COLOURS.get(name) or next(others) for name in capacities}
    rail = {high: i for i, high in enumerate(dict.fromkeys(high for _, high, name in lines if name == NIC))}
    for (low, high, name), links in lines.items():
        its_colour = RAIL_COLOURS[rail[high] % len(RAIL_COLOURS)] if name == NIC else colour[name]
        one, other = picture.shapes[low], picture.shapes[high]
        # From the top of the one to the bottom of the other, or side to side.
        dx, dy = (0.5, 0.0) if one.y == other.y else (0.0, 0.5)
        xs = one.x + dx * one.width, other.x - dx * other.width
        ys = one.y + dy * one.height, other.y - dy * other.height
        if heat is not None:
            axes.plot(xs, ys, color=heat.colour(*links), linewidth=2.0, zorder=2, gid=f"{low} - {high}")
            continue
        axes.plot(xs, ys, color=its_colour, linewidth=1.1, alpha=0.75, zorder=2)
    if heat is not None:
        heat.explain(axes.figure, axes)
        return
    handles = [
        Line2D([], [], color=colour[name], linewidth=2, label=_legend_label(name, values))
        for name, values in capacities.items()
    ]
    axes.figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=10)


def _label(device: str) -> str:
    """``rail0`` of ``rail0.leaf``, ``nic0`` of ``n1.nic0``."""
    first, _, last = device.partition(".")
    return last if last.startswith("nic") else first


def _legend_label(link_class: str, capacities: list[float]) -> str:
    each = " to ".join(dict.fromkeys(format_bandwidth(most(capacities)) for most in (min, max)))
    by_switch = ", coloured by switch" if link_class == NIC else ""
    return f"{link_class}: {len(capacities)} one-way links of {each}{by_switch}"


def _add_box(axes: Any, shape: _Shape, edge: str, bold: bool = False, gid: str | None = None) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch

    corner = (shape.x - shape.width / 2, shape.y - shape.height / 2)
    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.12", "linewidth": 1.0, "zorder": 1 if bold else 3}
    box = FancyBboxPatch(corner, shape.width, shape.height, facecolor=shape.fill, edgecolor=edge, gid=gid, **style)
    axes.add_patch(box)
    y, weight = (corner[1] + 0.25, "bold") if bold else (shape.y, "normal")
    ink = "white" if sum(to_rgb(shape.fill)) < 1.5 else "black"
    axes.text(shape.x, y, shape.label, ha="center", va="center", fontsize=9, fontweight=weight, color=ink, zorder=4)
