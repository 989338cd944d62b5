"""What a placement policy sees before it places: a window of the past, never the tokens that it is judged on.

The window is the first half of the recorded tokens (the run then draws from the second), all of them, or a file of
recorded routing. Of synthetic tokens it is a batch of the same popularities drawn from another seed. A placement by the
very batch that it is judged on is no window: ``placed_by_batch``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moesim.balance import expert_load
from moesim.errors import InputError
from moesim.layer.parts import Parts, place
from moesim.layer.recorded_router import first_bias
from moesim.layer.token_batches import Workload, open_workload
from moesim.placement import Placement
from moesim.placement_policies import FIXED_POLICIES, LEARN_FROM
from moesim.routing import route
from moesim.scenario import PlacementBlock
from moesim.workload import Batch, Half, half_of_trace, read_routing

_OTHER_TOKENS_STAGE = 6


@dataclass(frozen=True)
class Seen:
    """One layer's routing in a window: load float64[experts]; ``selected`` gives the experts of every token."""

    load: NDArray[np.float64]
    selected: Callable[[], NDArray[np.int32]]

    @cached_property
    def expert_ids(self) -> NDArray[np.int32]:
        """int32[tokens, top_k], -1 for none."""
        return self.selected()


def placed_by_batch(parts: Parts) -> bool:
    """Whether a policy that could learn from the past places by the load of the very batch."""
    section = parts.placement
    return _learns(section) and section.learn_from in (None, "batch")


def _learns(section: PlacementBlock) -> bool:
    """per_batch has no use for the past, and a map is learnt already."""
    return section.file is None and section.policy not in (*FIXED_POLICIES, "per_batch")


def window(workload: Workload, learn_from: str) -> Workload:
    """Return the tokens that a policy learns from, all of them at once.

    Args:
        workload: what the run draws from.
        learn_from: first_half, all, or the absolute path of recorded routing.

    Raises:
        InputError: the file cannot be read, or is of another number of experts.
    """
    if learn_from not in LEARN_FROM:
        trace = read_routing(learn_from, n_experts=workload.parts.router.n_experts)
        workload = replace(workload, recording=None, trace=trace, trace_layers=None)
    if workload.recording is None and workload.trace is None:
        return replace(workload, stage=_OTHER_TOKENS_STAGE)
    return _in_order(workload, "first" if learn_from == "first_half" else None)


def what_follows(workload: Workload, learn_from: str) -> Workload:
    """Return the tokens that a policy which learns so is judged on, all of them at once."""
    if workload.recording is None and workload.trace is None:
        return workload
    return _in_order(workload, "second" if learn_from == "first_half" else None)


def _in_order(workload: Workload, half: Half | None) -> Workload:
    """Every token once, and each batch of them from one time."""
    everything = workload.parts.workload.model_copy(update={"tokens_per_rank": None, "assign": "by_sequence"})
    return replace(workload, parts=replace(workload.parts, workload=everything), half=half)


def see(workload: Workload) -> Callable[[int], Seen]:
    """Return what gives the routing of a layer in a window; one batch serves the layers of a recording or synthetic."""
    if workload.trace is None:
        batch = workload.batch(0)
        return lambda layer: _seen(workload.parts, batch, layer)

    def of_trace(layer: int) -> Seen:
        trace = workload.trace
        assert trace is not None  # noqa: S101 - asked above
        if layer not in trace.layers:
            raise InputError(f"no layer {layer} to learn from", "placement.learn_from", f"it has {trace.layers}")
        alone = replace(workload, trace_layers=(layer,))
        seen = _seen(workload.parts, alone.batch(0), layer)
        if trace.unit == "counts":
            half = half_of_trace(trace, workload.half)
            seen = replace(seen, load=half.expert_counts()[trace.layers.index(layer)].astype(np.float64))
        return seen

    return of_trace


def _seen(parts: Parts, batch: Batch, layer: int) -> Seen:
    if batch.logits is not None:
        ids = route(batch.logits[layer], parts.router, first_bias(parts, batch)[layer]).expert_ids
    else:
        ids = (batch.expert_ids or {})[layer]
    load = expert_load(ids, parts.router.n_experts, batch.of_rows[0])
    return Seen(load, lambda: ids[batch.token_index])


def opened(parts: Parts) -> tuple[Parts, Workload]:
    """Return the parts with the placement that they learn, and their tokens."""
    workload = open_workload(parts)
    return with_learnt_placement(parts, lambda: workload), workload


def with_learnt_placement(parts: Parts, opened: Callable[[], Workload]) -> Parts:
    """Return the parts with the placement that the policy makes of its window; as they are where it has none.

    ``opened``: gives the run's workload.
    """
    learn_from = parts.placement.learn_from
    if learn_from is None or learn_from == "batch" or not _learns(parts.placement):
        return parts
    workload = opened()
    layers = workload.batch(0).layers[: parts.workload.layers_simulated]
    seen = see(window(workload, learn_from))
    placed = [place(parts, (its := seen(layer)).load, its.selected) for layer in layers]
    rows = np.stack([one.slot_expert for one in placed])
    return replace(parts, placement_map=Placement(rows, placed[0].slot_rank, parts.fabric.n_ranks, tuple(layers)))
