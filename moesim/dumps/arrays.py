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

from moesim.dumps.names import COLUMNS, GATES, LAYERS, MAPS, SLOT_COUNTS, layer_and_name, named, unit_of
from moesim.dumps.routed_experts import NAMES as ROUTED
from moesim.dumps.routed_experts import read_arrays
from moesim.dumps.routing_columns import read_columns
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
    for name, array in arrays.items():
        whole = name in (*LAYERS, *MAPS)
        if (whole or unit_of(name) or name in GATES) and array.dtype.kind not in ("iu" if whole else "iuf"):
            raise InputError(f"{name} is of {array.dtype}", where, f"{'whole ' * whole}numbers are needed")
    source, slot_map = Source("arrays", form), named(arrays, MAPS)
    if told.slot_expert is None and slot_map is not None and named(arrays, SLOT_COUNTS):
        told = replace(told, slot_expert=np.asarray(arrays[slot_map], np.int64))
    known = [name for name in arrays if unit_of(name)]
    if told.unit is not None and len(known) != 1:
        known = [name for name in known if unit_of(name) == told.unit] or known
    if len(arrays) == 1 and not known and not any(map(layer_and_name, arrays)):
        return read_array_alone(next(iter(arrays.values())), told, form, where)
    parts = [arrays[name] for name in ROUTED if name in arrays]
    routed = bool(parts) and set(known) <= set(ROUTED) and told.axes is None
    if routed and all(part.ndim == 3 and part.shape[1:] == parts[0].shape[1:] for part in parts):
        return read_arrays([np.concatenate(parts)], told, Source("vLLM", "routed experts"), where)
    column, main = named(arrays, COLUMNS["layer"]), arrays[known[0]] if known else np.zeros(0)
    if column is not None and main.ndim == 2 and arrays[column].shape == main.shape[:1]:
        columns = {name: one for name, one in arrays.items() if one.ndim in (1, 2) and len(one) == len(main)}
        return read_columns(columns, told, source, where, lambda row: f"{where}: row {row + 1}")
    if not known:
        return _layers_apart(arrays, told, source, where)
    if len(known) > 1 and {unit_of(name) for name in known} != {"logits", "ids"}:
        raise InputError(f"it holds {', '.join(known[:10])}", where, "say which is meant (--unit)")
    chosen = next((name for name in known if unit_of(name) == "logits"), known[0])
    numbers, main = named(arrays, LAYERS), arrays[chosen]
    if numbers and told.layers is None and arrays[numbers].ndim == 1:
        told = replace(told, layers=tuple(int(layer) for layer in arrays[numbers]))
    extra: dict[str, Any] = {}
    if len(known) > 1:
        ids = arrays[next(name for name in known if unit_of(name) == "ids")]
        if ids.shape[:-1] == main.shape[:-1]:
            selected = _one("ids", ids, replace(told, n_experts=main.shape[-1], top_k=None), source, where)
            extra = {"ids": selected.ids, "top_k": selected.top_k}
    gates = named(arrays, GATES)
    if unit_of(chosen) == "ids" and gates is not None and arrays[gates].shape == main.shape:
        extra["gates"] = arrays[gates].astype(np.float32).reshape(-1, *main.shape[-2:])
    return _one(chosen, main, told, source, where, **extra)


def _layers_apart(arrays: Arrays, told: Told, source: Source, where: str) -> RoutingTrace:
    """Arrays of one layer each: logits_3, layers.3.topk_ids, layer_3."""
    found: dict[str, dict[int, NDArray[Any]]] = {}
    for layer, plain, values in ((*place, arrays[name]) for name in arrays if (place := layer_and_name(name))):
        found.setdefault(plain, {})[layer] = values
    names = [name for name in found if not name or told.unit in (None, unit_of(name))]
    if not names:
        fix = "an array named logits, topk_idx or counts is needed"
        raise InputError(f"it holds {', '.join(list(arrays)[:10]) or 'nothing'}", where, fix)
    name = next((name for name in names if unit_of(name) == "logits"), names[0])
    layers, unit = sorted(found[name]), unit_of(name)
    rows = [np.atleast_2d(row).sum(axis=0) if unit == "counts" else row for _, row in sorted(found[name].items())]
    shapes = sorted({row.shape for row in rows})
    if len(shapes) > 1:
        what = f"{name} of {len(rows)} layers has the shapes {shapes[:4]}"
        raise InputError(what, where, "every layer needs every token")
    told = replace(told, layers=told.layers or tuple(layers))
    if unit is None:
        return read_array_alone(np.stack(rows), told, source.form, where)
    axes = told.axes or _LEADING[unit][-1 - len(shapes[0]) :]
    return _one(name, np.stack(rows), replace(told, axes=axes), source, where)


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
    dense = array.ndim == 3 and any((array == 0).all(axis=axes).any() for axes in ((0, 2), (1, 2)))
    if twice.mean() > 0.5 and not dense:
        return "counts"
    if array.shape[-1] <= 64 and array.size // array.shape[-1] > 256 and array.max() < 4096 and not twice.any():
        return "ids"
    raise InputError("whole numbers without a name: expert ids or counts?", where, "say which (--unit ids)")


def _one(name: str, array: NDArray[Any], told: Told, source: Source, where: str, **extra: Any) -> RoutingTrace:
    """One array by the unit that its name (or what is told) gives."""
    unit: Unit = unit_of(name) or told.unit or "ids"
    if name in SLOT_COUNTS and told.slot_expert is None:
        raise InputError(f"{name} counts slots", where, "give the map of slots to experts (--map)")
    full = _LEADING[unit]
    axes = told.axes or next((axes for axes in _AXES[unit] if len(axes) == array.ndim), ())
    numbers = array.dtype.kind in ("f" if unit == "logits" else "iuf") and 0 not in array.shape
    if not numbers or not len(axes) == len(set(axes)) == array.ndim or set(axes) - set(full):
        kind = {"logits": "floats", "ids": "whole numbers", "counts": "numbers"}[unit]
        shapes = " or ".join(f"[{', '.join(axes)}]" for axes in _AXES[unit])
        raise InputError(f"{name} has shape {array.shape} of {array.dtype}", where, f"{kind} {shapes} are {unit}")
    if told.axes is None and unit != "counts" and array.ndim == 3:
        _refuse_turned(array, told, unit, where)
    array = np.transpose(array, [axes.index(axis) for axis in full if axis in axes])
    array = np.expand_dims(array, [i for i, axis in enumerate(full) if axis not in axes])
    layers = array.shape[full.index("layers")]
    make = trace_of_logits if unit == "logits" else trace_of_ids if unit == "ids" else trace_of_counts
    return make(array, range(layers), told, source, where, **extra)


def _refuse_turned(array: NDArray[Any], told: Told, unit: Unit, where: str) -> None:
    """[tokens, layers, k] must not pass for [layers, tokens, k]: fewer tokens than layers, or a dense layer inside."""
    layers, tokens = array.shape[:2]
    zero = array == 0 if unit == "ids" and array.shape[2] > 1 else np.zeros((1, 1, 1), bool)
    turned = zero.all(axis=(0, 2)).any() or (told.layers is not None and len(told.layers) == tokens != layers)
    if tokens < layers or (turned and not (array == 0).all(axis=(1, 2)).any()):
        what = f"shape {array.shape}: {layers} layers of {tokens} tokens, or tokens before layers?"
        last = _LEADING[unit][-1]
        raise InputError(what, where, f"say --axes tokens,layers,{last} or --axes layers,tokens,{last}")
