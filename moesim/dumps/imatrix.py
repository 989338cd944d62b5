"""Selections per expert in an importance matrix of llama.cpp (``imatrix.gguf``).

``blk.L.ffn_gate_exps.weight.counts`` says how often each expert of layer L was selected; up and down projections repeat
it, so that one of them is read. The older ``.dat`` form has one count per tensor and no load of experts.
"""

import re
from pathlib import Path

import numpy as np

from moesim.dumps.gguf_file import read_gguf
from moesim.dumps.routing_trace import RoutingTrace, Source, Told, trace_of_counts
from moesim.errors import InputError

_COUNTS = re.compile(r"blk\.(\d+)\.ffn_(gate|up|gate_up|down)_exps\.weight\.counts")


def read_imatrix(path: Path, told: Told) -> RoutingTrace:
    """Return the counts of all layers with experts.

    Raises:
        InputError: a GGUF file without them.
    """
    where = str(path)
    values, tensors = read_gguf(path)
    layers: dict[int, np.ndarray] = {}
    for name in sorted(tensors, key=lambda name: ("gate" not in name, name)):  # gate first, where there is one
        found = _COUNTS.fullmatch(name)
        if found:
            layers.setdefault(int(found[1]), tensors[name].reshape(-1))
    if not layers:
        kind = values.get("general.type")
        what = "no counts of experts" if kind == "imatrix" else f"a GGUF file of the type {kind!r:.40}"
        raise InputError(what, where, "an importance matrix of an MoE model is needed")
    if len({len(row) for row in layers.values()}) > 1:
        raise InputError("layers have different numbers of experts", where)
    counts = np.stack([layers[layer] for layer in sorted(layers)])[None].astype(np.float64)
    return trace_of_counts(counts, sorted(layers), told, Source("llama.cpp", "imatrix"), where)
