"""Where the wires are busy: the busiest links over time, and bytes between nodes."""

import numpy as np

from moesim.report.charts import Gantt, HeatMap
from moesim.report.columns import RANK_PAIR_LIMIT, columns_of, layers_in, node_of_rank, pick, rows_in
from moesim.report.palette import cividis
from moesim.report.quantities import axis_scale, filled
from moesim.results import Result
from moesim.stages import PHASES

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
        key="link_map",
        title="The busiest links over time, first layer",
        caption="Share of what each link can carry at the algorithm's own rate, of the links of each class that are "
        "used most. Rows that differ are imbalance; a light row is what the others wait for.",
        x_label=f"time since the first rank entered ({unit})",
        row_label="link",
        rows=tuple(rows),
        row=row,
        start=time[first] / scale,
        end=end / scale,
        phase=tuple(names[step[r, a] - 1] for r, a in zip(row, first, strict=True)),
        slim=np.zeros(len(row), bool),
        note=tuple(f"{100 * mean:.3g} % on average" for mean in means),
        colours={name: shades[(255 * i) // (_STEPS - 1)] for i, name in enumerate(names)},
        source="busy_links.parquet",
    )


def node_traffic_chart(result: Result) -> HeatMap | None:
    """Bytes from each node to each other; where ranks are too many for pairs, ``traffic`` shows the nodes already."""
    table, node = columns_of(result, "transfers"), node_of_rank(result)
    nodes = int(node.max()) + 1
    if not rows_in(table) or nodes < 2 or int(result.summary["ranks"]) > RANK_PAIR_LIMIT:
        return None
    matrices = {}
    for phase in PHASES:
        rows = pick(table, np.asarray(table["phase"], str) == phase)
        matrix = np.zeros((nodes, nodes))
        ends = (node[np.asarray(rows["source_rank"])], node[np.asarray(rows["target_rank"])])
        np.add.at(matrix, ends, filled(rows["wire_bytes"]))
        matrices[phase] = matrix / layers_in(table)
    scale, unit = axis_scale(np.concatenate(list(matrices.values())), "B")
    return HeatMap(
        key="node_traffic",
        title="Traffic between nodes",
        caption="Bytes per layer from each node (row) to each other (column); on the diagonal, what stays in a node.",
        row_label="source node",
        column_label="target node",
        value_label=f"bytes per layer ({unit})",
        matrices={name: matrix / scale for name, matrix in matrices.items()},
        log=False,
        source="transfers.parquet",
    )
