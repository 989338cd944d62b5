"""Picking rows out of a result's tables, column-wise and without pandas."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.report.quantities import Floats, filled
from moesim.results import Result

Columns = dict[str, Any]
Mask = NDArray[np.bool_]

# Above this many ranks the transfers table has a row per node pair.
RANK_PAIR_LIMIT = 256


def columns_of(result: Result, table: str) -> Columns:
    """Columns of a table, empty where the run has no such table."""
    return result.tables.columns(table) if table in set(result.tables) else {}


def pick(columns: Columns, mask: Mask) -> Columns:
    """Rows of a table where ``mask`` holds."""
    return {name: np.ma.asarray(values)[mask] if np.ma.isMaskedArray(values) else np.asarray(values)[mask]
            for name, values in columns.items()}  # fmt: skip


def rows_in(columns: Columns) -> int:
    """Rows of a table."""
    return len(next(iter(columns.values()))) if columns else 0


def first_layer(columns: Columns) -> Columns:
    """Rows of the first step's first layer."""
    if not rows_in(columns):
        return columns
    step, layer = np.asarray(columns["step"]), np.asarray(columns["layer"])
    first = step == step.min()
    return pick(columns, first & (layer == layer[first].min()))


def layer_numbers(result: Result) -> tuple[str, dict[int, int]]:
    """What the layers are called, and the number of each: the recording's own, where it has one for each of them."""
    steps = columns_of(result, "steps")
    recorded = dict(zip(np.asarray(steps["layer"]).tolist(), filled(steps["recorded_layer"]).tolist(), strict=True))
    own = {layer: layer for layer in recorded}
    if recorded == own or len(set(recorded.values())) < len(recorded) or not np.isfinite([*recorded.values()]).all():
        return "layer", own
    return "recorded layer", {layer: int(number) for layer, number in recorded.items()}


def first_layer_name(result: Result) -> str:
    """``recorded layer 2`` where it is one, else ``first layer``."""
    word, numbers = layer_numbers(result)
    return f"{word} {numbers[min(numbers)]}" if word != "layer" else "first layer"


def layers_in(columns: Columns) -> int:
    """How many layers, over all steps, a table has rows of."""
    if not rows_in(columns):
        return 0
    return len(np.unique(np.stack([np.asarray(columns["step"]), np.asarray(columns["layer"])]), axis=1).T)


def mean_by(columns: Columns, key: str, value: str) -> tuple[NDArray[Any], Floats]:
    """Mean of a column over the rows of each value of another, which are returned in ascending order."""
    keys, index = np.unique(np.asarray(columns[key]), return_inverse=True)
    values = filled(columns[value])
    known = np.isfinite(values)
    count = np.bincount(index[known], minlength=len(keys))
    total = np.bincount(index[known], weights=values[known], minlength=len(keys))
    return keys, np.divide(total, count, out=np.full(len(keys), np.nan), where=count > 0)


def sum_over_layers(columns: Columns, key: str, value: str) -> tuple[NDArray[Any], Floats]:
    """Sum of a column for each value of another, per layer."""
    keys, index = np.unique(np.asarray(columns[key]), return_inverse=True)
    total = np.bincount(index, weights=filled(columns[value]), minlength=len(keys))
    return keys, total / max(layers_in(columns), 1)


def node_of_rank(result: Result) -> NDArray[np.int64]:
    """Node of each rank, [ranks]."""
    ranks = first_layer(columns_of(result, "ranks"))
    node = np.zeros(int(np.asarray(ranks["rank"]).max()) + 1, np.int64)
    node[np.asarray(ranks["rank"])] = np.asarray(ranks["node"])
    return node


def ranks_per_node(result: Result) -> int:
    """Ranks of every node where all nodes have the same number in a row, else 0."""
    node = node_of_rank(result)
    sizes = np.bincount(node)
    regular = len(set(sizes.tolist())) == 1 and bool((np.diff(node) >= 0).all())
    return int(sizes[0]) if regular else 0
