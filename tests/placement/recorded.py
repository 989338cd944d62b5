"""DeepSeek-V2-Lite's routing of four tasks, recorded by others: selections of 64 experts, top-6, ungrouped."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[3] / "shared" / "reference" / "expert_load" / "dsv2lite_esft_token_topk.npz"
TASKS = ("intent", "law", "summary", "translation")
LAYERS = (0, 5, 10, 15, 20, 25)
needs_recording = pytest.mark.skipif(not FILE.exists(), reason="the recorded routing is not here")


@cache
def _arrays():
    with np.load(FILE) as file:
        return {name: file[name] for name in file.files}


def task(name, layer):
    """Selections int32[tokens, 6] of a whole task."""
    return np.ascontiguousarray(_arrays()[f"{name}_topk"][:, layer].astype(np.int32))


def halves(name, layer):
    """The first and the second half of a task, cut between two of its sequences."""
    ids, ends = task(name, layer), np.cumsum(_arrays()[f"{name}_seqlen"])
    cut = ends[np.abs(ends - len(ids) / 2).argmin()]
    return ids[:cut], ids[cut:]


def everywhere():
    """Every task and layer."""
    return [(name, layer) for name in TASKS for layer in LAYERS]
