"""A trace as plain arrays or a table: what engines' own benchmarks and notebooks read."""

import io
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from moesim.dumps.routing_trace import RoutingTrace, top_of_logits
from moesim.errors import InputError


def of_rank(trace: RoutingTrace, rank: int) -> RoutingTrace:
    """Return the tokens that start on a rank.

    Raises:
        InputError: nothing says where tokens start, or none starts there.
    """
    if trace.rank is None:
        raise InputError("nothing says on which rank its tokens start", "--rank", "leave it out")
    its = trace.rank == rank
    if not its.any():
        raise InputError(f"no token starts on rank {rank}", "--rank", f"0 to {int(trace.rank.max())} have tokens")
    rows = {name: getattr(trace, name) for name in ("logits", "ids", "gates")}
    known = {name: getattr(trace, name) for name in ("step", "rank", "sequence")}
    return replace(
        trace,
        **{name: None if row is None else row[:, its] for name, row in rows.items()},
        **{name: None if row is None else row[its] for name, row in known.items()},
    )


def exported(trace: RoutingTrace, form: Literal["topk_idx", "npz", "parquet"], layer: int | None = None) -> bytes:
    """Return the bytes of a file.

    ``topk_idx``: int64 [tokens, k] of one layer as ``.npy``, as DeepEP's tests take it, -1 for none. ``npz``: arrays
    under names that ``read_routing`` knows. ``parquet``: rows of layer, token and ids, or of layer, expert and count.

    Raises:
        InputError: tokens of counts, or a layer that the trace does not have.
    """
    if layer is not None and layer not in trace.layers:
        raise InputError(f"no layer {layer}", "--layer", f"it has {trace.layers[0]} to {trace.layers[-1]}")
    ids = trace.ids
    if ids is None and trace.logits is not None and trace.top_k is not None:
        ids = top_of_logits(trace.logits, trace.top_k, trace.bias)
    stream = io.BytesIO()
    if form == "topk_idx":
        if ids is None:
            raise InputError(f"{trace.unit} hold no experts of single tokens", "--form", "npz or parquet")
        np.save(stream, ids[0 if layer is None else trace.layers.index(layer)].astype(np.int64))
        return stream.getvalue()
    if form == "npz":
        arrays: dict[str, Any] = {"layers": np.array(trace.layers)}
        if trace.counts is not None:
            arrays["counts"] = trace.counts
        if trace.logits is not None:
            arrays["logits"] = trace.logits
        if ids is not None:
            arrays["topk_idx"] = ids
        np.savez(stream, **arrays)
        return stream.getvalue()
    import pyarrow as pa
    import pyarrow.parquet as pq

    if ids is None:
        layers, experts = np.meshgrid(trace.layers, np.arange(trace.n_experts), indexing="ij")
        columns = {"layer": layers.ravel(), "expert": experts.ravel(), "count": trace.expert_counts().ravel()}
        table = pa.table(columns)
    else:
        layers, tokens = np.meshgrid(trace.layers, np.arange(ids.shape[1]), indexing="ij")
        lists = pa.FixedSizeListArray.from_arrays(pa.array(ids.ravel()), ids.shape[2])
        table = pa.table({"layer": layers.ravel(), "token": tokens.ravel(), "topk_idx": lists})
    pq.write_table(table, stream)
    return stream.getvalue()
