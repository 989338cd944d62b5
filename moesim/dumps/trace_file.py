"""moesim's own form of recorded routing: one ``.npz``, numpy only, no pickle.

=========  =======================  =======================================================================
member     dtype, shape             meaning
=========  =======================  =======================================================================
trace      uint8[n]                 UTF-8 JSON: schema_version, unit, layers, numbering, n_experts, top_k,
                                    source {tool, form, sha256}, notes
logits     float32[L, T, E]         of unit logits; float16 where kept so
ids        int16 or int32[L, T, K]  of unit ids, perhaps of unit logits; -1 for none
counts     int64[steps, L, E]       of unit counts
gates      float32[L, T, K]         where recorded
bias       float32[L, E]            selection bias, where recorded
step       int32[T]                 of each token, where recorded; rank and sequence alike
=========  =======================  =======================================================================
"""

import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from moesim.bounded_text import read_json
from moesim.broken_files import reading
from moesim.dumps.routing_trace import MAX_EXPERTS, RoutingTrace, Source
from moesim.errors import InputError
from moesim.files import marked_archive, write_files
from moesim.numpy_file import read_npz

SCHEMA_VERSION = 1
TRACE = "routing trace"
_ARRAYS = {
    "logits": "LTE", "ids": "LTK", "counts": "SLE", "gates": "LTK", "bias": "LE", "step": "T", "rank": "T",
    "sequence": "T",
}  # fmt: skip


def is_trace_file(names: list[str]) -> bool:
    """Return whether an archive with these members is a trace of ours."""
    return "trace" in names


def write_routing(path: str | Path, trace: RoutingTrace) -> None:
    """Write a trace, whole or not at all; the same trace gives the same bytes.

    Raises:
        ResourceError: the place cannot be written.
    """
    path = Path(path)
    meta = {
        "schema_version": SCHEMA_VERSION,
        "unit": trace.unit,
        "layers": list(trace.layers),
        "numbering": trace.numbering,
        "n_experts": trace.n_experts,
        "top_k": trace.top_k,
        "source": vars(trace.source),
        "notes": list(trace.notes),
    }
    arrays = {name: getattr(trace, name) for name in _ARRAYS if getattr(trace, name) is not None}
    if trace.ids is not None and trace.n_experts < 1 << 15:
        arrays["ids"] = trace.ids.astype(np.int16)
    stream = io.BytesIO()
    np.savez(stream, trace=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
    write_files(path.parent, {path.name: marked_archive(TRACE, stream.getvalue())})


def read_trace_file(path: Path) -> RoutingTrace:
    """Return the trace in a file of ours.

    Raises:
        InputError: another schema version, or arrays that do not belong together.
    """
    where = str(path)
    with reading(path):
        arrays = read_npz(path)
    with reading(path, "is it a trace of moesim's?", "its description cannot be read"):
        meta: dict[str, Any] = read_json(arrays.pop("trace").astype(np.uint8).tobytes().decode(), where)
        version = meta["schema_version"]
        if version != SCHEMA_VERSION:
            raise InputError(f"schema version {version!r:.20}", where, f"this moesim reads version {SCHEMA_VERSION}")
        unit, layers = meta["unit"], tuple(int(layer) for layer in meta["layers"])
        n_experts = int(meta["n_experts"])
        top_k = None if meta["top_k"] is None else int(meta["top_k"])
        source = Source(*(str(meta["source"][name]) for name in ("tool", "form", "sha256")))
        numbering: Literal["model", "moe"] = "moe" if meta["numbering"] == "moe" else "model"
        notes = tuple(str(note) for note in meta["notes"])
    arrays = {name: array for name, array in arrays.items() if name in _ARRAYS}
    if unit not in ("logits", "ids", "counts") or unit not in arrays or not 1 <= n_experts <= MAX_EXPERTS:
        raise InputError(f"a trace of {unit!r:.20} over {n_experts} experts without them", where)
    main = arrays[unit]
    tokens = main.shape[1] if main.ndim == 3 and unit != "counts" else None
    size = {"L": len(layers), "T": tokens, "E": n_experts}
    for name, array in arrays.items():
        axes, real = _ARRAYS[name], name in ("logits", "gates", "bias")
        fits = array.ndim == len(axes) and all(
            size.get(one) in (None, n) for one, n in zip(axes, array.shape, strict=True)
        )
        if not fits or array.dtype.kind not in ("f" if real else "iu") or 0 in array.shape:
            raise InputError(f"{name} has shape {array.shape} of {array.dtype}", where)
        if real and not np.isfinite(array).all():
            raise InputError(f"{name} holds a number that is not finite", where)
    ids, counts = arrays.get("ids"), arrays.get("counts")
    if ids is not None and (ids.min() < -1 or ids.max() >= n_experts):
        raise InputError(f"an expert id outside 0 to {n_experts - 1}", where)
    if counts is not None and counts.min() < 0:
        raise InputError("a count below 0", where)
    wide = {"logits": np.float32, "ids": np.int32, "step": np.int32, "rank": np.int32, "sequence": np.int32}
    arrays = {name: array.astype(wide.get(name, array.dtype)) for name, array in arrays.items()}
    return RoutingTrace(
        unit, layers, n_experts, source, numbering=numbering, top_k=top_k, notes=notes, **arrays
    )  # fmt: skip
