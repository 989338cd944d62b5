"""Expert statistics of TensorRT-LLM (``EXPERT_STATISTIC_ITER_RANGE``): a folder of counts per rank.

``meta_info.json`` says how many experts there are; ``rankR.safetensors`` holds "{iteration}_{layer}": int64 [E], what
the tokens of that rank selected, to be summed over the ranks. A fork also writes the ids of the tokens
(``rankR_raw.safetensors``): those are not read here.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from moesim.dumps.routing_trace import RoutingTrace, Source, Told, trace_of_counts
from moesim.dumps.safetensors_file import read_safetensors
from moesim.errors import InputError

META = "meta_info.json"
_RANK = re.compile(r"rank([0-9]+)\.safetensors")
_KEY = re.compile(r"([0-9]+)_([0-9]+)")


def is_rank_file(name: str) -> bool:
    """Return whether a file of this name holds one rank's counts."""
    return _RANK.fullmatch(name) is not None


def read_statistics(folder: Path, meta: Any, told: Told) -> RoutingTrace:
    """Return the counts of all ranks.

    Raises:
        InputError: a rank's file is missing, or has other iterations and layers than the rest.
    """
    where = str(folder)
    experts, top_k = (meta.get(name) if isinstance(meta, dict) else None
                      for name in ("num_experts", "num_experts_per_token"))  # fmt: skip
    if not isinstance(experts, int) or experts < 1:
        raise InputError("no num_experts", str(folder / META), 'a line such as {"num_experts": 256, ...} is needed')
    files = {int(found[1]): path for path in sorted(folder.iterdir()) if (found := _RANK.fullmatch(path.name))}
    ranks = max(meta.get("ep_size") or 0, max(files, default=-1) + 1)
    missing = [rank for rank in range(ranks) if rank not in files]
    if missing or not files:
        raise InputError(f"no rank{(missing or [0])[0]}.safetensors", where, "the counts of all ranks are summed")
    total: dict[tuple[int, int], Any] = {}
    for rank, path in sorted(files.items()):
        arrays = read_safetensors(path)
        keys = {name: _KEY.fullmatch(name) for name in arrays}
        foreign = [name for name, found in keys.items() if found is None]
        if foreign:
            raise InputError(f"the key {foreign[0]!r:.40}", str(path), 'keys are "{iteration}_{layer}"')
        parsed = {(int(found[1]), int(found[2])): arrays[name] for name, found in keys.items() if found}
        if total and set(parsed) != set(total):
            raise InputError(f"rank {rank} has other iterations or layers than rank 0", str(path))
        for key, row in parsed.items():
            if row.shape != (experts,):
                raise InputError(f"{key[0]}_{key[1]} has shape {row.shape}, not ({experts},)", str(path))
            total[key] = total[key] + row.astype(np.int64) if key in total else row.astype(np.int64)
    steps, layers = (sorted({key[axis] for key in total}) for axis in (0, 1))
    if len(total) != len(steps) * len(layers):
        raise InputError("not every iteration has every layer", where)
    counts = np.array([[total[step, layer] for layer in layers] for step in steps])
    known = {"top_k": top_k} if isinstance(top_k, int) else {}
    return trace_of_counts(counts, layers, told, Source("TensorRT-LLM", "expert statistics"), where, **known)
