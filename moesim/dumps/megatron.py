"""Router traces of Megatron-Core (``--moe-routing-trace-path``): ids and, where asked for, the bf16 logits of training.

``router_trace_rankR.jsonl`` has a line per step and layer with the ids of that rank's tokens, in ascending order of
expert; ``logits_rankR.bin`` the logits where a line gives their place; ``router_state_rankR.pt`` bias and score.
Files are per data rank. bf16 logits tie often, so that selecting again does not give the recorded ids: loads are
counted from the ids, the logits serve what-ifs, and the share of tokens that would differ is in the notes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.bounded_text import read_json
from moesim.broken_files import reading
from moesim.dumps.routing_trace import RoutingTrace, Source, Told, top_of_logits, trace_of_ids, trace_of_logits
from moesim.dumps.torch_file import from_bfloat16, read_torch
from moesim.errors import InputError

PATTERN = re.compile(r"router_trace_rank([0-9]+)\.jsonl")
_SOURCE = Source("Megatron-Core", "router trace")
_MOST_LINES = 1_000_000
Line = dict[str, Any]


def read_trace(folder: Path, told: Told) -> RoutingTrace:
    """Return the trace of all ranks of a folder; tokens in the order of step and rank.

    Raises:
        InputError: a rank's file is missing, or layers of a step hold different tokens.
    """
    where = str(folder)
    files = {int(found[1]): path for path in sorted(folder.iterdir()) if (found := PATTERN.fullmatch(path.name))}
    missing = [rank for rank in range(max(files)) if rank not in files]
    if missing:
        raise InputError(f"no router_trace_rank{missing[0]}.jsonl", where, "give the files of all ranks")
    notes: list[str] = []
    blocks: dict[tuple[int, int], dict[int, Line]] = {}
    for rank, path in sorted(files.items()):
        for number, line in _lines(path):
            if line.get("block", "decoder") != "decoder":
                notes.append("lines of multi-token-prediction layers are left out")
                continue
            try:
                key = (int(line["step"]), rank)
                layer, ids = int(line["layer"]), np.asarray(line["top_indices"], np.int64)
            except (KeyError, TypeError, ValueError, OverflowError):
                raise InputError("a line without whole step, layer and top_indices", f"{path}:{number}") from None
            if ids.ndim != 2:
                raise InputError(f"top_indices have shape {ids.shape}", f"{path}:{number}", "[tokens, k] is needed")
            if layer in blocks.setdefault(key, {}):
                raise InputError(f"step {key[0]}, layer {layer} appears twice", f"{path}:{number}")
            blocks[key][layer] = line | {"top_indices": ids}
    if not blocks:
        raise InputError("no line of the decoder", where)
    kept = _once(blocks, notes)
    layers = sorted(kept[0][1])
    for (step, rank), block in kept:
        if sorted(block) != layers or len({line["top_indices"].shape for line in block.values()}) > 1:
            raise InputError(f"step {step} of rank {rank} has other layers or tokens than the first", where)
    ids = np.stack([np.concatenate([block[layer]["top_indices"] for _, block in kept]) for layer in layers])
    tokens = [len(block[layers[0]]["top_indices"]) for _, block in kept]
    place = {
        "step": np.repeat([step for (step, _), _ in kept], tokens).astype(np.int32),
        "rank": np.repeat([rank for (_, rank), _ in kept], tokens).astype(np.int32),
    }
    notes = list(dict.fromkeys(notes))
    logits = _logits(folder, kept, layers, notes)
    if logits is None:
        return trace_of_ids(ids, layers, told, _SOURCE, where, notes=notes, **place)
    bias = _bias(folder, layers, logits.shape[2])
    chosen = trace_of_ids(ids, layers, told, _SOURCE, where, n_experts=logits.shape[2])
    if chosen.layers != tuple(told.layers or layers):
        raise InputError("a layer selects nothing", where)
    again = top_of_logits(logits, ids.shape[2], bias)
    differ = float(np.mean(np.any(np.sort(again, axis=2) != np.sort(ids, axis=2), axis=2)))
    notes.append(f"plain top-{ids.shape[2]} of the bf16 logits gives other experts for {differ:.1%} of the tokens")
    return trace_of_logits(
        logits, layers, told, _SOURCE, where, ids=chosen.ids, top_k=chosen.top_k, bias=bias, notes=notes, **place
    )


def _lines(path: Path) -> list[tuple[int, Line]]:
    lines = []
    with reading(path), path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if number > _MOST_LINES:
                raise InputError(f"more than {_MOST_LINES} lines", str(path))
            if text.strip():
                line = read_json(text, str(path), line=number)
                if not isinstance(line, dict):
                    raise InputError("a line that is no object", f"{path}:{number}")
                lines.append((number, line))
    return lines


def _once(
    blocks: Mapping[tuple[int, int], dict[int, Line]], notes: list[str]
) -> list[tuple[tuple[int, int], dict[int, Line]]]:
    """Steps and ranks in order; tensor-parallel ranks that repeat another's tokens of a step are taken once."""
    kept, seen = [], set()
    for key, block in sorted(blocks.items()):
        tokens = (key[0], tuple((layer, line["top_indices"].tobytes()) for layer, line in sorted(block.items())))
        if tokens not in seen:
            seen.add(tokens)
            kept.append((key, block))
    if len(kept) < len(blocks):
        notes.append(f"{len(blocks) - len(kept)} of {len(blocks)} steps of ranks repeat another's tokens: taken once")
    return kept


def _logits(
    folder: Path, kept: list[tuple[tuple[int, int], dict[int, Line]]], layers: list[int], notes: list[str]
) -> NDArray[np.float32] | None:
    """Logits [L, T, E], or None where not every line has its place in a file."""
    lines = [line for _, block in kept for line in block.values()]
    with_logits = sum("logit_offset" in line for line in lines)
    if with_logits < len(lines):
        if with_logits:
            notes.append(f"{len(lines) - with_logits} of {len(lines)} lines have no logits: ids alone are taken")
        return None
    raw: dict[int, NDArray[np.uint8]] = {}
    rows: dict[int, list[NDArray[np.float32]]] = {layer: [] for layer in layers}
    for (_, rank), block in kept:
        path = folder / f"logits_rank{rank}.bin"
        if rank not in raw:
            with reading(path):
                raw[rank] = np.fromfile(path, np.uint8)
        for layer, line in block.items():
            shape, at, size = line.get("logit_shape"), line["logit_offset"], line.get("logit_bytes")
            sizes = [*shape, at, size] if isinstance(shape, list) else []
            whole = len(sizes) == 4 and all(isinstance(n, int) and n >= 0 for n in sizes)
            if shape is None or size is None or not whole or shape[0] != len(line["top_indices"]):
                raise InputError(f"layer {layer}: logits of shape {shape!r:.40} at {at!r:.20}", str(path))
            if size != 2 * shape[0] * shape[1] or at + size > len(raw[rank]):
                raise InputError(f"layer {layer}: logits at {at} lie beyond the end", str(path), "is it truncated?")
            rows[layer].append(from_bfloat16(raw[rank][at : at + size].view("<u2")).reshape(shape))
    if len({part.shape[1] for parts in rows.values() for part in parts}) > 1:
        raise InputError("logits of different numbers of experts", str(folder))
    return np.stack([np.concatenate(rows[layer]) for layer in layers])


def _bias(folder: Path, layers: list[int], n_experts: int) -> NDArray[np.float32] | None:
    """The selection bias [L, E] of a sigmoid router, from the state of rank 0; None where there is none."""
    path = folder / "router_state_rank0.pt"
    if not path.is_file():
        return None
    state = read_torch(path)
    found = [state.get(layer) if isinstance(state, dict) else None for layer in layers]
    rows = [np.asarray(entry.get("expert_bias"), object) for entry in found if isinstance(entry, dict)]
    if len(rows) < len(layers) or any(row.shape != (n_experts,) for row in rows):
        return None
    return np.stack(rows).astype(np.float32)
