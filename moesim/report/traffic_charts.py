"""Where the tokens go: bytes between ranks, load of experts and ranks, bandwidth against message size, busy wires."""

import numpy as np
from numpy.typing import NDArray

from moesim.report.charts import BarChart, Gantt, HeatMap, LineChart, Mark, Series, worded
from moesim.report.columns import (
    RANK_PAIR_LIMIT,
    Columns,
    columns_of,
    layer_numbers,
    layers_in,
    node_of_rank,
    pick,
    ranks_per_node,
    rows_in,
    sum_over_layers,
)
from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.palette import LINK_WORDS, cividis, link_colour
from moesim.report.quantities import Floats, axis_scale, filled
from moesim.results import Result
from moesim.stages import PHASES

Ints = NDArray[np.integer]

# Points of the bandwidth chart: beyond this a cloud only gets darker.
_POINTS = 2000
_HOT_EXPERTS = 12
_TOP_LINKS = 10


def traffic_chart(result: Result) -> HeatMap | None:
    """Bytes from each rank to each other, per layer, dispatch and combine."""
    table = columns_of(result, "transfers")
    if not rows_in(table):
        return None
    per_node = int(result.summary["ranks"]) > RANK_PAIR_LIMIT
    node = node_of_rank(result)
    size = int(node.max()) + 1 if per_node else len(node)
    matrices, unit = _bytes_between(table, np.arange(size), size)
    noun = "node" if per_node else "rank"
    return HeatMap(
        **worded("traffic", noun=noun, unit=unit),
        matrices=matrices,
        grid_every=0 if per_node else ranks_per_node(result),
    )


def _bytes_between(table: Columns, place: Ints, size: int) -> tuple[dict[str, Floats], str]:
    """Bytes per layer between ``place[rank]`` of sources and targets, by phase, [size, size] each; and their unit."""
    matrices = {}
    for phase in PHASES:
        rows = pick(table, np.asarray(table["phase"], str) == phase)
        matrix = np.zeros((size, size))
        ends = (place[np.asarray(rows["source_rank"])], place[np.asarray(rows["target_rank"])])
        np.add.at(matrix, ends, filled(rows["wire_bytes"]))
        matrices[phase] = matrix / layers_in(table)
    scale, unit = axis_scale(np.concatenate(list(matrices.values())), "B")
    return {phase: matrix / scale for phase, matrix in matrices.items()}, unit


def expert_tokens(result: Result) -> tuple[str, Columns]:
    """Rows of the ``experts`` table of the layer with the worst max/mean, and that layer's name."""
    table, steps = columns_of(result, "experts"), columns_of(result, "steps")
    worst = int(np.argmax(np.nan_to_num(filled(steps["expert_load_max_over_mean"]), nan=0.0)))
    step, layer = int(steps["step"][worst]), int(steps["layer"][worst])
    rows = pick(table, (np.asarray(table["step"]) == step) & (np.asarray(table["layer"]) == layer))
    (word, numbers), recorded = layer_numbers(result), int(steps["recorded_layer"][worst])
    name = f"{word} {numbers[layer]}" + (f" (recorded layer {recorded})" if recorded != numbers[layer] else "")
    return (name if layers_in(table) > 1 or name != "layer 0" else ""), rows


def sorted_expert_load(result: Result) -> Floats:
    """Tokens of each expert over the mean, descending, of the layer with the worst imbalance."""
    _, rows = expert_tokens(result)
    load = np.bincount(np.asarray(rows["expert"]), weights=filled(rows["tokens"]))
    return np.sort(load)[::-1] / max(float(load.mean()), 1e-300)


def expert_chart(result: Result) -> BarChart:
    """Tokens of each expert, most loaded first."""
    layer, rows = expert_tokens(result)
    expert = np.asarray(rows["expert"])
    load: Floats = np.bincount(expert, weights=filled(rows["tokens"])).astype(np.float64)
    order = np.argsort(-load, kind="stable")
    ranks = ["" for _ in load]
    for slot in range(len(expert)):
        ranks[expert[slot]] = f"{ranks[expert[slot]]} {int(rows['rank'][slot])}".strip()
    mean = float(load.mean())
    floor = result.summary["uniform_router_expert_max_over_mean"]
    marks = [Mark("mean", mean)]
    if floor is not None:
        marks.append(Mark("most loaded expert under a uniform router", mean * float(floor)))
    return BarChart(
        **worded("expert_load"),
        title="Load of the experts" + (f", {layer}" if layer else ""),
        caption="Selections per expert, most loaded first"
        + ("; the layer with the worst imbalance." if layer else ".")
        + " The upper line is what chance alone gives at this number of distinct tokens.",
        labels=tuple(str(one) for one in order),
        values=load[order],
        marks=tuple(marks),
        details={
            "× mean": tuple(float(f"{load[i] / mean:.4g}") if mean else None for i in order),
            "on rank": tuple(ranks[i] for i in order),
        },
    )


def hot_experts(result: Result) -> DataTable:
    """The slots that carry most tokens, over all layers."""
    table = columns_of(result, "experts")
    tokens, layer = filled(table["tokens"]), np.asarray(table["layer"])
    step = np.asarray(table["step"])
    index = np.unique(np.stack([step, layer]), axis=1, return_inverse=True)[1].ravel()
    mean = np.bincount(index, weights=tokens) / np.bincount(index)
    order = np.argsort(-tokens, kind="stable")
    # Once each, however many micro-batches have it.
    slots = np.stack([step, layer, np.asarray(table["slot"])])[:, order]
    hottest = order[np.sort(np.unique(slots, axis=1, return_index=True)[1])][:_HOT_EXPERTS]
    mass = filled(table["gate_mass"])
    several = len(np.unique(step)) > 1
    word, numbers = layer_numbers(result)
    rows: list[tuple[Cell, ...]] = [
        (
            *((int(step[i]),) if several else ()),
            numbers[int(layer[i])],
            int(table["expert"][i]),
            int(table["slot"][i]),
            int(table["rank"][i]),
            int(tokens[i]),
            Quantity(tokens[i] / mean[index[i]] if mean[index[i]] else None),
            Quantity(mass[i]),
        )
        for i in hottest
    ]
    columns = (word, "expert", "slot", "rank", "selections", "× mean slot", "gate mass")
    return DataTable(("step", *columns) if several else columns, rows)


def rank_chart(result: Result) -> BarChart:
    """Selections computed on each rank, per layer."""
    table = columns_of(result, "ranks")
    ranks, load = sum_over_layers(table, "rank", "computed_selections")
    details: dict[str, tuple[Cell, ...]] = {"node": tuple(int(node) for node in node_of_rank(result)[ranks])}
    for label, key in (
        ("own tokens", "tokens"),
        ("copies received", "received_copies"),
        ("copies sent", "sent_copies"),
    ):
        details[label] = tuple(float(f"{value:.5g}") for value in sum_over_layers(table, "rank", key)[1])
    return BarChart(
        **worded("rank_load"),
        labels=tuple(str(rank) for rank in ranks),
        values=load,
        marks=(Mark("mean", float(load.mean())),),
        details=details,
    )


def bandwidth_chart(result: Result) -> LineChart | None:
    """Bandwidth that each transfer reached against its size, with the peaks of the wires."""
    table = columns_of(result, "transfers")
    if not rows_in(table):
        return None
    size, took = filled(table["wire_bytes"]), filled(table["finish_s"]) - filled(table["start_s"])
    moved = (size > 0) & (took > 0)
    source, target = np.asarray(table["source_rank"]), np.asarray(table["target_rank"])
    per_node = int(result.summary["ranks"]) > RANK_PAIR_LIMIT
    node = node_of_rank(result)
    inside = source == target if per_node else node[source] == node[target]
    peaks = result.explanation["topology"]["peak_bytes_per_s"]
    scale, unit = axis_scale(size[moved], "B")
    series, shown = [], []
    for link_class, name, chosen in (("nvlink", "inside a node", inside), ("nic", "between nodes", ~inside)):
        picked = np.flatnonzero(chosen & moved)
        if not len(picked):
            continue
        shown.append(link_class)
        # Even steps through the sizes keep the range and the shape of the cloud.
        by_size = picked[np.argsort(size[picked], kind="stable")]
        kept = by_size[np.unique(np.linspace(0, len(by_size) - 1, min(len(by_size), _POINTS // 2)).astype(np.int64))]
        series.append(
            Series(name, size[kept] / scale, size[kept] / took[kept] / 1e9, link_colour(link_class, 0), "points")
        )
    if not series:
        return None
    marks = [Mark(f"{LINK_WORDS[name]} peak", max(peaks[name]) / 1e9) for name in shown if peaks.get(name)]
    return LineChart(**worded("bandwidth", unit=unit), series=tuple(series), marks=tuple(marks), log_x=True, log_y=True)


def top_links(result: Result) -> DataTable:
    """The links nearest to their limit, mean over the layers."""
    table = columns_of(result, "links")
    names = np.asarray([f"{phase}\0{link}" for phase, link in zip(table["phase"], table["link"], strict=True)])
    keys, first, index = np.unique(names, return_index=True, return_inverse=True)
    count = np.bincount(index)
    mean = {
        key: np.bincount(index, weights=filled(table[key])) / count for key in ("wire_bytes", "busy_s", "utilisation")
    }
    order = np.lexsort((keys, -mean["wire_bytes"], -mean["utilisation"]))[:_TOP_LINKS]
    rows: list[tuple[Cell, ...]] = []
    for i in order:
        row = first[i]
        rows.append(
            (
                str(table["phase"][row]),
                str(table["link"][row]),
                str(table["link_class"][row]),
                f"{table['source'][row]} → {table['target'][row]}",
                Quantity(mean["utilisation"][i], "%"),
                Quantity(mean["wire_bytes"][i], "B"),
                Quantity(float(table["capacity_bytes_per_s"][row]), "B/s"),
                Quantity(mean["busy_s"][i], "s"),
            )
        )
    return DataTable(("phase", "link", "class", "from → to", "utilisation", "bytes", "peak", "busy"), rows)


# Shares of what a link can carry are drawn in so many steps.
_STEPS = 5


def link_map(result: Result) -> Gantt | None:
    """Use of the busiest links of each class over the first layer: links as rows, colours for the share."""
    table = columns_of(result, "busy_links")
    if not rows_in(table):
        return None
    spans = columns_of(result, "spans")
    begin = float(np.asarray(spans["start_s"]).min()) if rows_in(spans) else 0.0
    rows = dict.fromkeys(np.asarray(table["link"]).tolist())
    use = filled(table["utilisation"]).reshape(len(rows), -1)
    time = filled(table["time_s"])[: use.shape[1]] - begin
    width = float(np.diff(time).min()) if len(time) > 1 else 0.0
    step = np.where(use > 0, np.minimum(np.ceil(use * _STEPS), _STEPS), 0).astype(int)
    # Buckets of the same colour in a row are one span.
    starts = np.diff(step, axis=1, prepend=-1) != 0
    starts[:, 1:] |= np.diff(time)[None, :] > 1.5 * width
    row, first = np.nonzero(starts)
    last = np.append(np.where(row[1:] == row[:-1], first[1:], len(time)), len(time))[: len(row)]
    shown = step[row, first] > 0
    row, first, last = row[shown], first[shown], last[shown]
    end = np.maximum(time[last - 1] + width, time[first] + width)
    scale, unit = axis_scale(end, "s")
    names = [f"{100 * i // _STEPS} to {100 * (i + 1) // _STEPS} %" for i in range(_STEPS)]
    shades = cividis()
    means = [float(use[r, a:b].mean()) for r, a, b in zip(row, first, last, strict=True)]
    return Gantt(
        **worded("link_map", unit=unit),
        rows=tuple(rows),
        row=row,
        start=time[first] / scale,
        end=end / scale,
        phase=tuple(names[step[r, a] - 1] for r, a in zip(row, first, strict=True)),
        slim=np.zeros(len(row), bool),
        note=tuple(f"{100 * mean:.3g} % on average" for mean in means),
        colours={name: shades[(255 * i) // (_STEPS - 1)] for i, name in enumerate(names)},
    )


def node_traffic_chart(result: Result) -> HeatMap | None:
    """Bytes from each node to each other; where ranks are too many for pairs, ``traffic`` shows the nodes already."""
    table, node = columns_of(result, "transfers"), node_of_rank(result)
    nodes = int(node.max()) + 1
    if not rows_in(table) or nodes < 2 or int(result.summary["ranks"]) > RANK_PAIR_LIMIT:
        return None
    matrices, unit = _bytes_between(table, node, nodes)
    return HeatMap(**worded("node_traffic", unit=unit), matrices=matrices, log=False)
