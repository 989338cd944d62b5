"""Plain arrays of npy, npz and safetensors: logits, expert ids or counts under the names that engines give them.

Ids are [layers, tokens, k] or [tokens, k], logits [layers, tokens, experts] or [tokens, experts], counts [experts],
[layers, experts] or [steps, layers, experts]; ``routed_experts`` is [tokens, layers, k] as vLLM has it. An array that
could be read in two ways is refused until it is told which.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps.names import GATES, LAYERS, MAPS, SLOT_COUNTS, layer_and_name, named, unit_of
from moesim.dumps.routed_experts import NAMES as ROUTED
from moesim.dumps.routed_experts import read_arrays
from moesim.dumps.routing_columns import LAYER, read_columns
from moesim.dumps.routing_trace import (
    RoutingTrace,
    Source,
    Told,
    Unit,
    trace_of_counts,
    trace_of_ids,
    trace_of_logits,
)  # fmt: skip
from moesim.errors import InputError

Arrays = Mapping[str, NDArray[Any]]
_AXES: dict[Unit, tuple[tuple[str, ...], ...]] = {
    "logits": (("tokens", "experts"), ("layers", "tokens", "experts")),
    "ids": (("tokens", "k"), ("layers", "tokens", "k")),
    "counts": (("experts",), ("layers", "experts"), ("step", "layers", "experts")),
}
_LEADING = {"logits": ("layers", "tokens", "experts"), "ids": ("layers", "tokens", "k"), "counts": _AXES["counts"][2]}


def read_arrays_by_name(arrays: Arrays, told: Told, form: str, where: str) -> RoutingTrace:
    """Return the trace of the arrays of an archive.

    Raises:
        InputError: none of a known name, several that could be meant, or axes that could be read in two ways.
    """
    told = _with_own_map(arrays, told)
    source = Source("arrays", form)
    known = [name for name in arrays if unit_of(name)]
    if told.unit is not None and len(known) != 1:
        known = [name for name in known if unit_of(name) == told.unit] or known
    if len(arrays) == 1 and not known and not any(map(layer_and_name, arrays)):
        return read_array_alone(next(iter(arrays.values())), told, form, where)
    if known and all(name in ROUTED for name in known):
        parts = [arrays[name] for name in ROUTED if name in arrays]
        if all(part.ndim == 3 for part in parts) and told.axes is None:
            joined = np.concatenate(parts) if len({part.shape[1:] for part in parts}) == 1 else None
            if joined is not None:
                return read_arrays([joined], told, Source("vLLM", "routed experts"), where)
    column = named(arrays, LAYER)
    if (
        column is not None
        and known
        and arrays[column].shape == arrays[known[0]].shape[:1]
        and arrays[known[0]].ndim == 2
    ):
        length = len(arrays[column])
        columns = {name: values for name, values in arrays.items() if values.ndim in (1, 2) and len(values) == length}
        return read_columns(columns, told, source, where, lambda row: f"{where}: row {row + 1}")
    per_layer = _per_layer(arrays, told, where)
    if not known and per_layer:
        name, layers, stacked = per_layer
        if not name:
            return read_array_alone(stacked, replace(told, layers=told.layers or tuple(layers)), form, where)
        told = replace(
            told, layers=told.layers or tuple(layers), axes=told.axes or _LEADING[unit_of(name) or "ids"][-3:]
        )
        return _one(name, stacked, told, source, where)
    if not known:
        listed = ", ".join(list(arrays)[:10])
        raise InputError(
            f"it holds {listed or 'nothing'}", where, "an array named logits, topk_idx or counts is needed"
        )
    units = {unit_of(name) for name in known}
    if len(known) > 1 and units != {"logits", "ids"}:
        raise InputError(f"it holds {', '.join(known[:10])}", where, "say which is meant (--unit)")
    logits = next((name for name in known if unit_of(name) == "logits"), known[0])
    numbers, main = named(arrays, LAYERS), arrays[logits]
    if numbers and told.layers is None and arrays[numbers].ndim == 1 and len(arrays[numbers]) in main.shape[:2]:
        told = replace(told, layers=tuple(int(layer) for layer in arrays[numbers]))
    extra: dict[str, Any] = {}
    if len(known) > 1:
        ids = arrays[next(name for name in known if unit_of(name) == "ids")]
        if ids.shape[:-1] == main.shape[:-1]:
            chosen = _one("ids", ids, replace(told, n_experts=main.shape[-1], top_k=None), source, where)
            extra = {"ids": chosen.ids, "top_k": chosen.top_k}
    gates = named(arrays, GATES)
    if unit_of(logits) == "ids" and gates is not None and arrays[gates].shape == main.shape:
        extra["gates"] = arrays[gates].astype(np.float32).reshape(-1, *main.shape[-2:])
    return _one(logits, main, told, source, where, **extra)


def read_array_alone(array: NDArray[Any], told: Told, form: str, where: str) -> RoutingTrace:
    """Return the trace of an array without a name: floats are logits; whole numbers ids or counts, if only one fits.

    Raises:
        InputError: both fit, or the shape fits nothing.
    """
    return _one(told.unit or _unit(array, where), array, told, Source("arrays", form), where)


def _unit(array: NDArray[Any], where: str) -> Unit:
    if array.dtype.kind == "f" and array.ndim in (2, 3) and not np.array_equal(array, np.rint(array)):
        return "logits"
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2, 3) or 0 in array.shape:
        raise InputError(f"an array of shape {array.shape} of {array.dtype}", where, "logits, expert ids or counts?")
    if array.ndim == 1:
        return "counts"
    ordered = np.sort(array, axis=-1)
    twice = ((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)).any(axis=-1)
    if array.min() < 0:
        return "ids"
    if twice.mean() > 0.5 and not _dense_layer(array):
        return "counts"
    if array.shape[-1] <= 64 and array.size // array.shape[-1] > 256 and array.max() < 4096 and not twice.any():
        return "ids"
    raise InputError("whole numbers without a name: expert ids or counts?", where, "say which (--unit ids)")


def _dense_layer(array: NDArray[Any]) -> bool:
    return array.ndim == 3 and bool(
        ((array == 0).all(axis=(0, 2)) | False).any() or (array == 0).all(axis=(1, 2)).any()
    )


def _one(name: str, array: NDArray[Any], told: Told, source: Source, where: str, **extra: Any) -> RoutingTrace:
    """One array by the unit that its name (or what is told) gives."""
    unit: Unit = unit_of(name) or told.unit or "ids"
    if name in SLOT_COUNTS and told.slot_expert is None:
        raise InputError(f"{name} counts slots", where, "give the map of slots to experts (--map)")
    array = np.asarray(array)
    if array.dtype.kind not in "iuf" or 0 in array.shape or (unit == "logits" and array.dtype.kind != "f"):
        raise InputError(f"{name} has shape {array.shape} of {array.dtype}", where, _needed(unit))
    axes = told.axes or next((axes for axes in _AXES[unit] if len(axes) == array.ndim), None)
    if axes is None or len(axes) != array.ndim or set(axes) - set(_LEADING[unit]):
        raise InputError(f"{name} has shape {array.shape} of {array.dtype}", where, _needed(unit))
    if told.axes is None and unit != "counts" and array.ndim == 3:
        _refuse_turned(array, told, unit, where)
    full = _LEADING[unit]
    array = np.transpose(array, sorted(range(array.ndim), key=lambda i: full.index(axes[i])))
    array = array.reshape(
        [array.shape[sorted(axes, key=full.index).index(axis)] if axis in axes else 1 for axis in full]
    )
    layers = array.shape[full.index("layers")]
    make = trace_of_logits if unit == "logits" else trace_of_ids if unit == "ids" else trace_of_counts
    return make(array, range(layers), told, source, where, **extra)


def _refuse_turned(array: NDArray[Any], told: Told, unit: Unit, where: str) -> None:
    """[tokens, layers, k] must not pass for [layers, tokens, k]: fewer tokens than layers, or a dense layer inside."""
    layers, tokens = array.shape[:2]
    turned = unit == "ids" and array.shape[2] > 1 and bool((array == 0).all(axis=(0, 2)).any())
    turned = turned or (told.layers is not None and len(told.layers) == tokens != layers)
    if tokens < layers or (turned and not (array == 0).all(axis=(1, 2)).any()):
        last = "k" if unit == "ids" else "experts"
        raise InputError(
            f"shape {array.shape}: {layers} layers of {tokens} tokens, or tokens before layers?", where,
            f"say --axes tokens,layers,{last} or --axes layers,tokens,{last}",
        )  # fmt: skip


def _needed(unit: Unit) -> str:
    kind = {"logits": "floats", "ids": "whole numbers", "counts": "numbers"}[unit]
    return f"{kind} " + " or ".join(f"[{', '.join(axes)}]" for axes in _AXES[unit]) + f" are {unit}"


def _with_own_map(arrays: Arrays, told: Told) -> Told:
    name = named(arrays, MAPS)
    if told.slot_expert is not None or name is None or not named(arrays, SLOT_COUNTS):
        return told
    return replace(told, slot_expert=np.asarray(arrays[name], np.int64))


def _per_layer(arrays: Arrays, told: Told, where: str) -> tuple[str, list[int], NDArray[Any]] | None:
    """Arrays of one layer each (logits_3, layers.3.topk_ids) stacked; None where there are none."""
    found: dict[str, dict[int, NDArray[Any]]] = {}
    for name, values in arrays.items():
        place = layer_and_name(name)
        if place is not None:
            found.setdefault(place[1], {})[place[0]] = values
    chosen = [name for name in found if not name or told.unit in (None, unit_of(name))]
    if not chosen:
        return None
    name = next((name for name in chosen if unit_of(name) == "logits"), chosen[0])
    rows = found[name]
    if unit_of(name) == "counts":
        rows = {layer: np.atleast_2d(row).sum(axis=0) for layer, row in rows.items()}
    shapes = sorted({row.shape for row in rows.values()})
    if len(shapes) > 1:
        raise InputError(
            f"{name} of {len(rows)} layers has the shapes {shapes[:4]}", where, "every layer needs every token"
        )
    return name, sorted(rows), np.stack([rows[layer] for layer in sorted(rows)])
