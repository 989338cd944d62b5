"""Layers of a training step on one expert-parallel group: a forward pass and a backward one, in turn or overlapped.

The forward pass is micro-batch 0, the backward one micro-batch 1; the latter begins in the last layer. Its first
all-to-all takes gradients of the outputs to the experts, as ``dispatch`` does tokens, and its second takes those of the
inputs back, as ``combine``. Gradients of weights are stages of their own, since nobody waits for them.

Overlapped, each moves its tokens while the other computes, in the order of DeepSeek-V3's report, figure 4: experts
back, their weights, experts forward, attention back, its weights, attention forward. In turn nothing overlaps but the
shared expert, and weights come last.
"""

from collections.abc import Iterator

from moesim.stages import ATTENTION, ATTENTION_WEIGHTS, EXPERT_WEIGHTS, PROJECTIONS, STAGE, Stage
from moesim.timeline.program import Key, Operation, layer_pieces, on_compute

FORWARD, BACKWARD = 0, 1
"""Micro-batches of the two passes."""
WEIGHTS = (EXPERT_WEIGHTS, ATTENTION_WEIGHTS)


class _Pass:
    """The parts of a layer's pass: before dispatch, dispatch, experts, combine, and what follows."""

    def __init__(self, permutes_first: bool, way: int) -> None:
        before, self._experts, after = layer_pieces(permutes_first)
        attention = (PROJECTIONS, ATTENTION)
        self._way = way
        if way == FORWARD:
            self._before, self._after = (*attention, *before), after
        else:  # the gate's gradient comes with the tokens', and both go through attention
            self._before = tuple(stage for stage in before if stage.name != "gate")
            self._after = (*after, STAGE["gate"], *reversed(attention))

    def before(self, layer: int, came: tuple[Key, ...] = ()) -> Iterator[Operation]:
        yield from on_compute(self._before, layer, self._way, came)

    def dispatch(self, layer: int, came: tuple[Key, ...] = ()) -> Operation:
        """``came``: waited for where nothing is computed before."""
        after = (self._key(self._before[-1], layer),) if self._before else came
        return Operation(STAGE["dispatch"], layer, self._way, after)

    def shared(self, layer: int, came: tuple[Key, ...] = ()) -> Operation:
        return Operation(STAGE["shared_expert"], layer, self._way, came)

    def experts(self, layer: int) -> Iterator[Operation]:
        yield from on_compute(self._experts, layer, self._way, (self._key(STAGE["dispatch"], layer),))

    def combine(self, layer: int) -> Operation:
        return Operation(STAGE["combine"], layer, self._way, (self._key(self._experts[-1], layer),))

    def after(self, layer: int) -> Iterator[Operation]:
        yield from on_compute(self._after, layer, self._way, (self._key(STAGE["combine"], layer),))

    def end(self, layer: int) -> tuple[Key, ...]:
        """What the next layer waits for."""
        return (self._key(self._after[-1] if self._after else STAGE["combine"], layer),)

    def _key(self, stage: Stage, layer: int) -> Key:
        return stage.name, layer, self._way


def overlapped(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    """Yield both passes through ``n_layers`` MoE layers, each beside the other."""
    last, x, y = n_layers - 1, _Pass(permutes_first, FORWARD), _Pass(permutes_first, BACKWARD)
    yield from y.before(last)
    yield y.dispatch(last)
    yield from x.before(0)
    yield x.dispatch(0)
    for layer in range(n_layers):
        back = last - layer
        yield y.shared(back)
        yield from y.experts(back)
        yield y.combine(back)
        yield Operation(EXPERT_WEIGHTS, back, BACKWARD)
        yield x.shared(layer)
        yield from x.experts(layer)
        yield x.combine(layer)
        yield from y.after(back)
        if back:
            yield from y.before(back - 1, y.end(back))
            yield y.dispatch(back - 1, y.end(back))
        yield Operation(ATTENTION_WEIGHTS, back, BACKWARD)
        yield from x.after(layer)
        if back:
            yield from x.before(layer + 1, x.end(layer))
            yield x.dispatch(layer + 1)


def passes_in_turn(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    """Yield the forward pass through ``n_layers`` MoE layers, then the backward one, then the weights."""
    came: tuple[Key, ...] = ()
    for way, layers in ((FORWARD, range(n_layers)), (BACKWARD, range(n_layers - 1, -1, -1))):
        one = _Pass(permutes_first, way)
        for layer in layers:
            yield from one.before(layer, came)
            yield one.dispatch(layer, came)
            yield one.shared(layer, came)
            yield from one.experts(layer)
            yield one.combine(layer)
            yield from one.after(layer)
            came = one.end(layer)
    for stage in WEIGHTS:
        for layer in range(n_layers):
            yield Operation(stage, layer, BACKWARD, came)
