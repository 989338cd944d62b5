"""A trace as plain arrays or a table: what engines' own benchmarks and notebooks read."""

import io
from typing import Any, Literal

import numpy as np

from moesim.dumps.routing_trace import RoutingTrace
from moesim.errors import InputError
from moesim.files import mark, marked_archive

KINDS = {"topk_idx": "", "npz": "routing as arrays", "parquet": "routing as a table"}
"""Kinds of files; an array by itself has no room for a mark."""


def exported(
    trace: RoutingTrace, form: Literal["topk_idx", "npz", "parquet"], layer: int | None = None, rank: int | None = None
) -> bytes:
    """Return the bytes of a file.

    ``topk_idx``: int64 [tokens, k] of one layer as ``.npy``, as DeepEP's tests take it, -1 for none. ``npz``: arrays
    under names that ``read_routing`` knows. ``parquet``: rows of layer, token and ids, or of layer, expert and count.
    With a ``rank`` only the tokens that start there.

    Raises:
        InputError: tokens of counts, or a layer or rank that the trace does not have.
    """
    if layer is not None and layer not in trace.layers:
        raise InputError(f"no layer {layer}", "--layer", f"it has {trace.layers[0]} to {trace.layers[-1]}")
    its: Any = slice(None)
    if rank is not None:
        its = np.flatnonzero(trace.rank == rank) if trace.rank is not None else []
        if not len(its):
            raise InputError(f"no token is known to start on rank {rank}", "--rank", "leave it out")
    selected = trace.selected
    ids = None if selected is None else selected[:, its]
    stream = io.BytesIO()
    if form == "topk_idx":
        if ids is None:
            raise InputError(f"{trace.unit} hold no experts of single tokens", "--form", "npz or parquet")
        np.save(stream, ids[0 if layer is None else trace.layers.index(layer)].astype(np.int64))
        return stream.getvalue()
    if form == "npz":
        logits = None if trace.logits is None else trace.logits[:, its]
        arrays = {"layers": np.array(trace.layers), "counts": trace.counts, "logits": logits, "topk_idx": ids}
        np.savez(stream, **{name: array for name, array in arrays.items() if array is not None})  # type: ignore[arg-type]
        return marked_archive(KINDS[form], stream.getvalue())
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
    pq.write_table(table.replace_schema_metadata({"moesim": mark(KINDS[form])}), stream)
    return stream.getvalue()
