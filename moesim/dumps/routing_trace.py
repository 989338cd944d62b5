"""What routers did, as somebody recorded it: logits, expert ids or expert counts, whoever wrote them.

Every importer ends here, so that what is odd about a form stays in its own module. Experts are logical (the model's
own numbers, not slots); -1 means no expert (padding, masked, dropped) and is never counted. Not kept: text, and the
ranks' own slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError

Unit = Literal["logits", "ids", "counts"]
Axes = tuple[str, ...]
MAX_EXPERTS = 65_536
MAX_LAYERS = 1_000
# Whole numbers up to here are exact floats, and no run of any length selects more often.
MOST_SELECTIONS = 1 << 53


@dataclass(frozen=True)
class Source:
    """Who wrote a file, in which form, and the SHA-256 of its bytes (of all files of a folder)."""

    tool: str
    form: str
    sha256: str = ""


@dataclass(frozen=True)
class Told:
    """What the caller says about a file that does not say it itself; None where the file has to.

    Attributes:
        n_experts: routed experts of a layer, E.
        top_k: experts of a token, K.
        unit: what plain numbers are.
        axes: names of an array's axes in their order, among step, layers, tokens, experts, k.
        layers: numbers of the layers along the layer axis.
        slot_expert: expert of each slot, [slots] or [layers, slots], where ids or counts are of slots.
    """

    n_experts: int | None = None
    top_k: int | None = None
    unit: Unit | None = None
    axes: Axes | None = None
    layers: tuple[int, ...] | None = None
    slot_expert: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class RoutingTrace:
    """Recorded routing of L layers; of the three arrays the one of ``unit`` is there, with logits perhaps ids too.

    Attributes:
        unit: what was recorded.
        layers: number of each layer, ascending.
        numbering: whether these are the model's layers, or the MoE layers counted by themselves.
        n_experts: routed experts of a layer, E.
        top_k: experts of a token, K; None where nothing says it.
        logits: float32 [L, T, E].
        ids: int32 [L, T, K], -1 for none.
        counts: int64 [steps, L, E].
        gates: float32 [L, T, K], or None.
        bias: float32 [L, E] of the selection, or None.
        step, rank, sequence: int32 [T] of each token, or None where nothing says it.
        source: who wrote it.
        notes: what was left out, merged or assumed, in sentences.
    """

    unit: Unit
    layers: tuple[int, ...]
    n_experts: int
    source: Source
    numbering: Literal["model", "moe"] = "model"
    top_k: int | None = None
    logits: NDArray[np.float32] | None = None
    ids: NDArray[np.int32] | None = None
    counts: NDArray[np.int64] | None = None
    gates: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None
    step: NDArray[np.int32] | None = None
    rank: NDArray[np.int32] | None = None
    sequence: NDArray[np.int32] | None = None
    notes: tuple[str, ...] = ()

    @property
    def tokens(self) -> int | None:
        """Tokens of each layer, T; None for counts."""
        rows = self.logits if self.logits is not None else self.ids
        return None if rows is None else rows.shape[1]

    @property
    def selected(self) -> NDArray[np.int32] | None:
        """Ids [L, T, K] as recorded, else the top-k of the logits, without groups; None where neither is known."""
        if self.ids is not None or self.logits is None or self.top_k is None:
            return self.ids
        return top_of_logits(self.logits, self.top_k, self.bias)

    def expert_counts(self) -> NDArray[np.int64]:
        """Return how often each expert was selected, int64 [layers, experts].

        Logits without ids are counted by their top-k, the bias added to the sigmoid where there is one; no groups.

        Raises:
            InputError: logits alone, and nothing says how many experts a token selects.
        """
        if self.counts is not None:
            total: NDArray[np.int64] = self.counts.sum(axis=0)
            return total
        ids = self.selected
        if ids is None:
            raise InputError("logits alone have no counts", fix="say how many experts a token selects (top_k)")
        return np.stack([np.bincount(row[row >= 0], minlength=self.n_experts) for row in ids]).astype(np.int64)


def top_of_logits(logits: NDArray[Any], top_k: int, bias: NDArray[np.float32] | None) -> NDArray[np.int32]:
    """Return the ids int32 [L, T, K] of the highest logits; with a bias [L, E], of sigmoid(logit) + bias."""
    chosen = np.empty((*logits.shape[:2], top_k), np.int32)
    for layer, rows in enumerate(logits):
        scores = rows if bias is None else 1 / (1 + np.exp(-rows.astype(np.float64))) + bias[layer]
        chosen[layer] = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return chosen


def trace_of_ids(
    ids: NDArray[Any], layers: Sequence[int], told: Told, source: Source, where: str, **known: Any
) -> RoutingTrace:
    """Return the trace of selections [L, T, K] as recorded: slots mapped to experts, empty columns and layers dropped.

    ``known``: further fields of the trace, ``n_experts`` among them where the file says it.

    Raises:
        InputError: an id that is no expert, or twice in one token.
    """
    ids, layers = whole_numbers(ids, where), _numbered(len(ids), layers, told, where)
    notes, n_experts = list(known.pop("notes", ())), known.pop("n_experts", None)
    if told.slot_expert is not None:
        ids = np.stack([experts_of_slots(rows, told.slot_expert, i, where) for i, rows in enumerate(ids)])
        n_experts = n_experts or 1 + int(told.slot_expert.max())
    # No expert twice: zeros in every place of every token are a layer that was never written, a dense one.
    unwritten = (0, -1) if ids.shape[2] > 1 and ids.shape[1] else (-1,)
    used = ~np.array([np.isin(rows, unwritten).all() for rows in ids])
    if not used.any():
        raise InputError("no token selects an expert", where)
    if not used.all():
        empty = [layer for layer, one in zip(layers, used, strict=True) if not one]
        notes.append(f"layers {shortened(empty)} select nothing and are left out: dense layers")
    layers = tuple(layer for layer, one in zip(layers, used, strict=True) if one)
    columns = (ids[used] >= 0).any(axis=(0, 1))
    ids = ids[used][:, :, columns] if not (used.all() and columns.all()) else ids
    known |= {name: known[name][used] for name in ("gates", "bias") if known.get(name) is not None}
    if known.get("gates") is not None:
        known["gates"] = known["gates"][:, :, columns]
    top_k = known.pop("top_k", None) or ids.shape[2]
    if told.top_k is not None and told.top_k != top_k:
        raise InputError(f"{top_k} experts per token, not {told.top_k}", where)
    n_experts = told.n_experts or n_experts
    if n_experts is None:
        n_experts = 1 + int(ids.max(initial=0))
        notes.append(f"the number of experts is not in the file: {n_experts} are seen")
    _check_width(n_experts, where)
    _check_ids(ids, layers, n_experts, where)
    masked = int((ids < 0).sum())
    if masked:
        notes.append(f"{masked:,} of {ids.size:,} selections are -1: no expert, not counted")
    ids = ids.astype(np.int32)
    return RoutingTrace("ids", layers, n_experts, source, top_k=top_k, ids=ids, notes=tuple(notes), **known)


def trace_of_counts(
    counts: NDArray[Any], layers: Sequence[int], told: Told, source: Source, where: str, **known: Any
) -> RoutingTrace:
    """Return the trace of counts [steps, L, E], of slots if a map is told; layers and steps of zeros dropped.

    Raises:
        InputError: a count below 0 or not a whole number, no count at all, or another number of experts than told.
    """
    notes, layers = list(known.pop("notes", ())), _numbered(counts.shape[1], layers, told, where)
    if counts.dtype.kind == "f":  # of half precision, 2^53 is infinite
        with np.errstate(over="ignore"):
            counts = counts.astype(np.float64)
    bad = np.argwhere(~((counts >= 0) & (counts <= MOST_SELECTIONS)))
    if len(bad):
        step, layer, expert = bad[0]
        what = f"layer {layers[layer]}, expert {expert} has the count {counts[step, layer, expert]}"
        raise InputError(what, where, "counts are from 0 to 2^53")
    total = counts.sum(dtype=np.float64)
    if total > MOST_SELECTIONS:
        raise InputError(
            f"the counts sum to {total:.3g}", where, "at most 2^53 selections: give shares, or fewer steps"
        )
    if told.slot_expert is not None:
        counts = counts_of_experts(counts, told.slot_expert, where)
    width = counts.shape[2]
    _check_width(width, where, told.top_k)
    if told.n_experts not in (None, width):
        fix = "are these slots? give the map" if width > told.n_experts else "are these counts of this model?"
        raise InputError(f"counts of {width} experts, the model has {told.n_experts}", where, fix)
    steps_used, layers_used = (counts.sum(axis=axes) > 0 for axes in ((1, 2), (0, 2)))
    if not layers_used.any():
        raise InputError("all counts are 0", where)
    if not layers_used.all():
        empty = [layer for layer, used in zip(layers, layers_used, strict=True) if not used]
        notes.append(f"layers {shortened(empty)} have no count and are left out: dense layers")
    if not steps_used.all():
        notes.append(f"{int((~steps_used).sum())} of {len(steps_used)} steps are empty and left out")
    kept = counts[steps_used][:, layers_used]
    whole = np.rint(kept)
    if not np.array_equal(whole, kept):
        # Shares and averages count too; scaled so that rounding moves none by more than one in ten million.
        whole = np.rint(kept / kept.max() * 1e7)
        notes.append("counts are not whole numbers: scaled to whole ones, shares kept")
    chosen = tuple(layer for layer, used in zip(layers, layers_used, strict=True) if used)
    known |= {"top_k": told.top_k or known.get("top_k"), "counts": whole.astype(np.int64), "notes": tuple(notes)}
    return RoutingTrace("counts", chosen, width, source, **known)


def trace_of_logits(
    logits: NDArray[Any], layers: Sequence[int], told: Told, source: Source, where: str, **known: Any
) -> RoutingTrace:
    """Return the trace of router logits [L, T, E]; of rows that sum to 1, probabilities, the logarithms.

    Raises:
        InputError: a logit that is not finite, or another number of experts than told.
    """
    notes, layers = list(known.pop("notes", ())), _numbered(len(logits), layers, told, where)
    width = logits.shape[2]
    _check_width(width, where, told.top_k)
    if told.n_experts not in (None, width):
        raise InputError(f"logits of {width} experts, the model has {told.n_experts}", where)
    with np.errstate(over="ignore"):
        logits = logits.astype(np.float32)
    bad = np.argwhere(~np.isfinite(logits).all(axis=2))
    if len(bad):
        raise InputError(f"layer {layers[bad[0][0]]}, token {bad[0][1]} has a logit that is not finite", where)
    if logits.size and logits.min() >= 0 and np.allclose(logits.sum(axis=2), 1, atol=2e-3):
        logits = np.log(np.maximum(logits, np.finfo(np.float32).tiny))
        notes.append("every row sums to 1: probabilities after a softmax, whose logarithms are taken for logits")
    known |= {"top_k": told.top_k or known.get("top_k"), "logits": logits, "notes": tuple(notes)}
    return RoutingTrace("logits", layers, width, source, **known)


def _numbered(count: int, layers: Sequence[int], told: Told, where: str) -> tuple[int, ...]:
    """The numbers of ``count`` layers of data, those told before those that the file has."""
    if count > MAX_LAYERS:
        raise InputError(f"{count} layers", where, f"at most {MAX_LAYERS} are read")
    layers = told.layers or tuple(layers)
    if len(layers) != count or len(set(layers)) != count:
        raise InputError(f"{count} layers of data for {len(layers)} numbers", where, "name each layer once")
    if not 0 <= min(layers, default=0) <= max(layers, default=0) < MAX_LAYERS:
        raise InputError(f"layers {min(layers)} to {max(layers)}", where, f"numbers are from 0 to {MAX_LAYERS - 1}")
    return layers


def experts_of_slots(ids: NDArray[Any], slot_expert: NDArray[np.int64], layer: int, where: str) -> NDArray[np.int64]:
    """Return the experts of the slots ``ids`` of one layer, -1 kept; ``slot_expert`` is [slots] or [layers, slots]."""
    if slot_expert.ndim == 2 and layer >= len(slot_expert):
        raise InputError(f"the map has {len(slot_expert)} layers, the routing more", where)
    row = slot_expert if slot_expert.ndim == 1 else slot_expert[layer]
    outside = (ids < -1) | (ids >= len(row))
    if outside.any():
        raise InputError(f"slot {ids[outside][0]}, the map has {len(row)}", where, "is it the map of this recording?")
    mapped: NDArray[np.int64] = np.where(ids < 0, -1, row[np.maximum(ids, 0)])
    return mapped


def counts_of_experts(counts: NDArray[Any], slot_expert: NDArray[np.int64], where: str) -> NDArray[Any]:
    """Return counts [steps, L, E] of experts from those [steps, L, slots] of slots."""
    rows = (
        np.broadcast_to(slot_expert, (counts.shape[1], slot_expert.shape[-1])) if slot_expert.ndim == 1 else slot_expert
    )
    if rows.shape != counts.shape[1:]:
        what = (
            f"counts of {counts.shape[1]} layers x {counts.shape[2]} slots, a map of {rows.shape[0]} x {rows.shape[1]}"
        )
        raise InputError(what, where)
    by_expert = np.zeros((len(counts), len(rows), 1 + int(slot_expert.max())), counts.dtype)
    for step, own in zip(by_expert, counts, strict=True):
        np.add.at(step, (np.arange(len(rows))[:, None], rows), own)
    return by_expert


def whole_numbers(raw: NDArray[Any], where: str) -> NDArray[Any]:
    """Return ids as integers.

    Raises:
        InputError: one is not a whole number.
    """
    if raw.dtype.kind in "iu":
        return raw
    if raw.dtype.kind != "f":
        raise InputError(f"expert ids are of type {raw.dtype}", where, "whole numbers are needed")
    bad = np.argwhere(~((np.abs(raw) <= MOST_SELECTIONS) & (raw == np.rint(raw))))
    if len(bad):
        layer, token, place = bad[0]
        what = f"layer {layer}, token {token}: expert id {raw[layer, token, place]} is not a whole number"
        raise InputError(what, where)
    return raw.astype(np.int64)


def _check_width(n_experts: int, where: str, top_k: int | None = None) -> None:
    if n_experts > MAX_EXPERTS:
        raise InputError(f"{n_experts} experts", where, f"at most {MAX_EXPERTS} are read")
    if (top_k or 0) > n_experts:
        raise InputError(f"{top_k} experts of a token, of {n_experts}", where, "give fewer (--top-k)")


def _check_ids(ids: NDArray[Any], layers: Sequence[int], n_experts: int, where: str) -> None:
    for layer, rows in zip(layers, ids, strict=True):
        outside = np.flatnonzero(((rows < -1) | (rows >= n_experts)).any(axis=1))
        if len(outside):
            chosen = rows[outside[0]].tolist()
            what = f"layer {layer}: token {outside[0]} selects {chosen}, outside 0 to {n_experts - 1}"
            raise InputError(what, where, "-1 stands for none")
        ordered = np.sort(rows, axis=1)
        twice = np.flatnonzero(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1))
        if len(twice):
            what = f"layer {layer}: token {twice[0]} selects an expert twice: {rows[twice[0]].tolist()}"
            raise InputError(what, where, "padding has to be -1")


def shortened(layers: Sequence[int]) -> str:
    """Return numbers in words: 0-2, 5."""
    parts: list[list[int]] = []
    for layer in sorted(layers):
        if parts and layer == parts[-1][1] + 1:
            parts[-1][1] = layer
        else:
            parts.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def with_source(trace: RoutingTrace, sha256: str) -> RoutingTrace:
    """Return the trace with the digest of the bytes that it was read from."""
    return replace(trace, source=replace(trace.source, sha256=trace.source.sha256 or sha256))
