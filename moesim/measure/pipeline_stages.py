"""What the stages of a pipeline hold, and what their passes take.

MoE layers take their share of a chunk that was simulated: so many of them forward, back, or one beside the other.
Layers without experts, the output matrix and what multi-token prediction adds are priced apart and overlap with
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from moesim.layer import Inference, Passes, Training
from moesim.stages import PHASES
from moesim.timeline import BACKWARD, FORWARD, WEIGHTS, LayerTrace, Pass, Task

_POWER = 16


@dataclass(frozen=True)
class Chunk:
    """Some MoE layers on the clock, both passes in turn or overlapped.

    Attributes:
        layers: of them.
        passes: seconds until the last rank has ended each, from the end of the one before; where they overlap, all of
            it stands under ``forward``.
        moving_s: in dispatch and combine, over all ranks; ``shown_s``: of that while the rank computes nothing.
    """

    layers: int
    passes: Passes
    moving_s: float
    shown_s: float

    @property
    def hidden_share(self) -> float | None:
        """Share of dispatch and combine in which a rank computes; None where nothing moves."""
        return 1.0 - self.shown_s / self.moving_s if self.moving_s else None


def chunk_of(traces: Sequence[LayerTrace], overlapped: bool) -> Chunk:
    """Return what a chunk's layers took."""
    late = {stage.name for stage in WEIGHTS}
    ends, ran, moving = {FORWARD: 0.0, BACKWARD: 0.0}, [], 0.0
    for trace in traces:
        spans = {name: (start, trace.end_s[name]) for name, start in trace.start_s.items()} | dict(trace.beside)
        for name, (_, end) in spans.items():
            if name not in late:
                ends[trace.micro_batch] = max(ends[trace.micro_batch], float(end.max()))
        ran += [span for name, span in spans.items() if name not in PHASES]
        moving += sum(float((phase.leave_s - phase.enter_s).sum()) for phase in trace.phases.values())
    start, end = (np.array([span[side] for span in ran]) for side in (0, 1))
    order = np.argsort(start, axis=0, kind="stable")
    start, end = np.take_along_axis(start, order, 0), np.maximum.accumulate(np.take_along_axis(end, order, 0))
    last = max(*ends.values(), float(end[-1].max()))
    idle = np.maximum(start[1:] - end[:-1], 0.0).sum() + start[0].sum() + (max(ends.values()) - end[-1]).clip(0).sum()
    passes = (
        Passes(last) if overlapped else Passes(ends[FORWARD], ends[BACKWARD] - ends[FORWARD], last - ends[BACKWARD])
    )
    # Where nothing is computed beside communication the two differ by rounding alone.
    shown = moving if idle > moving * (1 - 1e-12) else float(idle)
    return Chunk(len({trace.layer for trace in traces}), passes, moving, shown)


class Stage(NamedTuple):
    """What a stage holds: MoE layers, layers without experts, output matrices; fractions where stages are even.

    ``predictions``: layers of multi-token prediction, which are MoE layers and more.
    """

    moe: float = 0.0
    dense: float = 0.0
    heads: float = 0.0
    predictions: float = 0.0


@dataclass
class StageCosts:
    """Seconds of tasks.

    Attributes:
        alone: chunk of both passes in turn; ``pair``: overlapped, None where nothing overlaps.
        dense, head, prediction: seconds of one of each.
        chunks: how many of each chunk the tasks asked for so far were made of: of ``alone`` half by the forward passes.
    """

    stages: Sequence[Stage]
    alone: Chunk
    pair: Chunk | None
    dense: Passes
    head: Passes
    prediction: Passes
    chunks: dict[str, float] = field(default_factory=lambda: {"alone": 0.0, "pair": 0.0})

    def seconds(self, task: Task) -> float:
        """Return what a rank takes for a task."""
        if len(task) == 1:
            return self._alone(task[0], self.stages[task[0].stage].moe)
        forward, back = (self.stages[one.stage].moe for one in task)
        both = min(forward, back)
        assert self.pair is not None  # noqa: S101 - only orders of overlapped passes have such tasks
        self.chunks["pair"] += both / self.pair.layers
        left = self._alone(task[0], forward - both) + self._alone(task[1], back - both)
        return both / self.pair.layers * self.pair.passes.forward + left

    def _alone(self, one: Pass, moe: float) -> float:
        stage, count = self.stages[one.stage], moe / self.alone.layers
        if one.kind != "weights":
            self.chunks["alone"] += count / 2
        whole = self._of(count, stage)
        return whole.backward if one.kind == "backward" else float(getattr(whole, one.kind))

    def _of(self, chunks: float, stage: Stage) -> Passes:
        whole = Passes().plus(self.alone.passes, chunks).plus(self.dense, stage.dense)
        return whole.plus(self.head, stage.heads).plus(self.prediction, stage.predictions)

    def communication(self) -> tuple[float, float]:
        """Return the seconds of dispatch and combine in the tasks so far, and those that show."""
        ran = [(self.chunks["alone"], self.alone)] + ([(self.chunks["pair"], self.pair)] if self.pair else [])
        return sum(count * one.moving_s for count, one in ran), sum(count * one.shown_s for count, one in ran)

    def whole(self, stage: Stage) -> float:
        """Return what both passes of a stage take, its MoE layers overlapped where the order overlaps passes."""
        passes = self._of(0.0 if self.pair else stage.moe / self.alone.layers, stage)
        pairs = stage.moe / self.pair.layers * self.pair.passes.forward if self.pair else 0.0
        return passes.forward + passes.backward + pairs


def stages_of(step: Inference, training: Training, costs: StageCosts) -> list[Stage]:
    """Deal a model's layers to the stages of its pipeline, the output matrices to the last."""
    spec, count = step.spec, training.stages
    extra = Stage(training.mtp_layers, 0.0, 1.0, training.mtp_layers)
    if training.stage_layers == "even":
        of = (spec.moe_layers + extra.moe, step.plain_layers, extra.heads, extra.predictions)
        return [Stage(*(part / count for part in of))] * count
    moe = [layer in spec.moe_layer_ids for layer in range(spec.layers)]
    sizes = training.stage_layers
    if isinstance(sizes, str):
        layer_s = {True: costs.whole(Stage(1.0)), False: costs.whole(Stage(0.0, 1.0))}
        sizes = dealt([layer_s[one] for one in moe], costs.whole(extra), count)
    found, first = [], 0
    for size in sizes:
        own = moe[first : first + size]
        found.append(Stage(float(sum(own)), float(len(own) - sum(own))))
        first += size
    last = found[-1]
    return [*found[:-1], Stage(last.moe + extra.moe, last.dense, extra.heads, extra.predictions)]


def dealt(layer_s: Sequence[float], last_s: float, stages: int) -> tuple[int, ...]:
    """Cut layers into stages: the slowest as fast as can be, then all as alike as can be.

    Args:
        layer_s: what each layer takes.
        last_s: what the last stage does beside its layers.
        stages: how many.

    Returns:
        Layers of each.
    """
    layers, scale = len(layer_s), sum(layer_s) + last_s
    sums, last_s = [value / scale for value in accumulate(layer_s, initial=0.0)], last_s / scale
    # A high power of the loads is ruled by the largest, and then by the next. From the last stage to the first, by the
    # layer that a stage begins with: the least that it and those behind it cost, and where it ends.
    cost, cuts = [(sums[-1] - begin + last_s) ** _POWER for begin in sums], list[list[int]]()
    for _ in range(stages - 1):
        least = [
            min(((sums[end] - begin) ** _POWER + cost[end], end) for end in range(first, layers + 1))
            for first, begin in enumerate(sums)
        ]
        cost = [value for value, _ in least]
        cuts.append([end for _, end in least])
    sizes, first = list[int](), 0
    for ends in reversed(cuts):
        sizes.append(ends[first] - first)
        first = ends[first]
    return (*sizes, layers - first)
