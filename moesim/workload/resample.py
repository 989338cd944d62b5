"""Logits of a recorded router for another number of experts.

A recording has the experts that its model had; a scenario may want 256 or 258. Rather than inventing
logits, the recorded ones are *refined* (more experts, ``refine.py``) or *merged* (fewer, ``expert_merging.py``),
against the very router of the scenario, such that two kinds of figures stay what they were: max / mean of
the experts' loads, and the mean number of distinct ranks and nodes per token, for equal numbers of ranks and
nodes on which experts are contiguous. The note gives what was reached beside the target, and says so if it was missed.

Not modelled: how a model trained with that many experts would have specialised them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.workload.batch import Logits
from moesim.workload.expert_merging import merge
from moesim.workload.fidelity import Select, distinct_groups, expert_loads, group_of_expert, max_over_mean
from moesim.workload.refine import parent_of_expert, refine

TOLERANCE = 0.02
"""A figure further from its target than this is said to be missed."""
ROOM = 0.8
"""Max / mean is at most E / K (an expert in every token); nearer to it than this it is not compared."""


@dataclass(frozen=True)
class Resampled:
    """Logits for another number of experts, and how faithful they are."""

    logits: NDArray[np.float32]
    """[D, E']."""
    bias: NDArray[np.float32]
    """[E'], inherited from the recorded experts."""
    figures: dict[str, Any]
    """``model``, ``knobs`` and, per figure, ``{"target", "achieved"}``."""
    note: str
    """One sentence for the report."""


def resample_experts(
    logits: Logits,
    n_experts: int,
    select: Select,
    *,
    group_counts: Sequence[int],
    rng: np.random.Generator,
    bias: NDArray[np.float32] | None = None,
    weight: NDArray[np.float64] | None = None,
) -> Resampled:
    """Return logits [D, ``n_experts``] made from recorded ones [D, E].

    ``select``: the router, (logits[D, E], bias[E]) -> ids[D, K], for either number of experts.
    ``group_counts``: the numbers of ranks and nodes (and routing groups) at which distinct groups per token
    are kept. Numbers are compared whose every group holds an expert before and after (two after merging);
    experts lie contiguously on the largest of them, ``numpy.array_split``, and smaller ones join its groups.
    ``weight`` [D]: how often each token occurs in the batch; once if not given.

    Raises InputError if ``n_experts`` is less than what a token selects.
    """
    source = np.ascontiguousarray(logits, np.float32)
    recorded = source.shape[1]
    old_bias = np.zeros(recorded, np.float32) if bias is None else np.asarray(bias, np.float32)
    times = np.ones(len(source)) if weight is None else np.asarray(weight, np.float64)
    old_ids = select(source, old_bias)
    if n_experts < old_ids.shape[1]:
        raise InputError(
            f"{n_experts} experts are fewer than the {old_ids.shape[1]} that a token selects",
            where="model.n_experts",
            fix="lower routing.top_k or give more experts",
        )
    largest = recorded if n_experts >= recorded else n_experts // 2
    compared = sorted({int(groups) for groups in group_counts if 1 < groups <= largest})
    finest = compared[-1] if compared else 1
    target = _figures(old_ids, recorded, compared, times)
    knobs: dict[str, float]
    if n_experts == recorded:
        new_logits, new_bias, model, knobs = source, old_bias, "as recorded", {}
    elif n_experts > recorded:

        def miss(ids: NDArray[np.int32]) -> float:
            return _worst(_figures(ids, n_experts, compared, times), target)

        parent = parent_of_expert(n_experts, recorded, finest)
        new_logits, new_bias, gap = refine(source, old_bias, parent, select, times, rng, miss)
        model, knobs = "refined experts", {"gap": gap}
    else:
        into = parent_of_expert(recorded, n_experts, finest)
        highest = ROOM * n_experts / old_ids.shape[1]
        distinct = {
            groups: (group_of_expert(n_experts, groups, finest), target[f"distinct_of_{groups}"]) for groups in compared
        }
        new_logits, new_bias, pulls = merge(source, old_bias, into, select, times, highest, distinct)
        model, knobs = "merged experts", {f"pull_{groups}": pull for groups, pull in pulls.items()}
        if target["expert_load_max_over_mean"] > highest:
            del target["expert_load_max_over_mean"]
    achieved = _figures(select(new_logits, new_bias), n_experts, compared, times)
    figures = {name: {"target": target.get(name), "achieved": achieved[name]} for name in achieved}
    note = f"{n_experts} experts from {recorded} recorded ones ({model}): " + ", ".join(
        _sentence(name, achieved[name], target.get(name)) for name in achieved
    )
    worst = _worst(achieved, target)
    if worst > TOLERANCE:
        note += f"; the furthest is {worst:.1%} off what was recorded"
    return Resampled(new_logits, new_bias, {"model": model, "knobs": knobs, **figures}, note)


def _figures(
    ids: NDArray[np.int32], n_experts: int, compared: Sequence[int], weight: NDArray[np.float64]
) -> dict[str, float]:
    figures = {"expert_load_max_over_mean": max_over_mean(expert_loads(ids, n_experts, weight))}
    for groups in compared:
        group = group_of_expert(n_experts, groups, compared[-1])
        figures[f"distinct_of_{groups}"] = distinct_groups(ids, group, weight)
    return figures


def _worst(achieved: dict[str, float], target: dict[str, float]) -> float:
    return max((abs(achieved[name] / target[name] - 1) for name in target), default=0.0)


def _sentence(name: str, achieved: float, target: float | None) -> str:
    recorded = "not comparable" if target is None else f"recorded {target:.3f}"
    if name == "expert_load_max_over_mean":
        return f"expert load max/mean {achieved:.3f} ({recorded})"
    return f"{achieved:.3f} of {name.removeprefix('distinct_of_')} groups per token ({recorded})"
