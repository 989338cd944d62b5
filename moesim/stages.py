"""The stages of an MoE layer, once: what the layer's order, times, tables, summary, thresholds and charts follow from.

A new stage is one more row here and its seconds in ``moesim/layer/kernel_seconds.py``.
"""

from typing import Literal, NamedTuple

Lane = Literal["compute", "network", "weights"]
LANES: tuple[Lane, ...] = ("compute", "network")
"""What a rank does at the same time; each lane does one thing at a time. A third one is there while weights move."""


class Stage(NamedTuple):
    """One thing that a rank does in a layer.

    Attributes:
        name: its own; all-to-all phases are called ``dispatch`` and ``combine``.
        lane: where it runs.
        kind: a ``kernel`` takes seconds, a ``phase`` is an all-to-all whose length follows from its flows.
        component: part of the layer time that it counts in; several stages may share one, and a stage without one is
            not part of the layer.
        label: its name in spans, traces and charts.
        beside: it runs beside the phase before it, so that only what outlasts the phase adds to the layer.
        colour: in charts: blues compute, oranges move bytes.
        meaning: what the component is, said by one of its stages.
    """

    name: str
    lane: Lane
    kind: Literal["kernel", "phase"] = "kernel"
    component: str = ""
    label: str = ""
    beside: bool = False
    colour: str = ""
    meaning: str = ""


def _kernel(name: str, colour: str, meaning: str) -> Stage:
    return Stage(name, "compute", component=name, label=name, colour=colour, meaning=meaning)


def _phase(name: str, colour: str) -> Stage:
    meaning = f"{name}, waiting for others left out, layout and notify included"
    return Stage(name, "network", "phase", component=name, label=name, colour=colour, meaning=meaning)


STAGES = (
    _kernel("gate", "#a6cee3", "router GEMM, top-k and the cast to FP8"),
    _kernel("permute", "#56b4e9", "sorting tokens by expert"),
    _phase("dispatch", "#e69f00"),
    Stage("shared_expert", "compute", component="expert_compute", label="shared_expert", beside=True, colour="#009e73"),
    Stage(
        "experts",
        "compute",
        component="expert_compute",
        label="expert_compute",
        colour="#0072b2",
        meaning="routed experts, and what of the shared expert outlasts dispatch",
    ),
    _phase("combine", "#d55e00"),
    _kernel("unpermute", "#3d93cf", "weighted sum of the experts' outputs"),
)
"""In the order of a layer around a plain all-to-all; ``moesim.timeline.program`` moves what other libraries do."""

STAGE = {stage.name: stage for stage in STAGES}

OTHER = Stage("other", "compute")
"""What a rank computes between two layers, attention and the like: not part of the layer."""

MIGRATION = Stage("migration", "network", "phase", label="migration", colour="#8c6bb1")
"""Ranks stop while weights of experts change place: not part of a layer."""
BESIDE = Stage("weights", "weights", "phase", label="weights", colour="#c3b1d9")
"""The same beside the tokens, on a lane of its own."""

KERNELS = tuple(stage for stage in STAGES if stage.kind == "kernel")
PHASES = tuple(stage.name for stage in STAGES if stage.kind == "phase")
KERNEL_COMPONENTS = tuple(dict.fromkeys(stage.component for stage in KERNELS))
COMPONENTS = ("arrival", *dict.fromkeys(stage.component for stage in STAGES), "wait")
"""Parts of the layer time, which they sum to."""
OVER_RANKS = (*PHASES, "expert_compute")
"""Parts of which the summary has the mean over all ranks and the slowest rank's time beside the critical rank's."""


def _beside(name: str, colour: str, label: str = "") -> Stage:
    return Stage(name, "compute", label=label or name, colour=colour)


HOST = _beside("host", "#bdbdbd")
DENSE = _beside("dense_layers", "#8c6bb1")
PROJECTIONS = _beside("projections", "#c6dbef")
ATTENTION = _beside("attention", "#6baed6")
SEND_DISPATCH, RECEIVE_DISPATCH, SEND_COMBINE, RECEIVE_COMBINE = (
    _beside(f"{way}_{phase}", "#fdd0a2") for phase in ("dispatch", "combine") for way in ("send", "receive")
)
DOWN = _beside("experts_down", "#08519c")
HEAD = _beside("head", "#74c476")
EXPERT_WEIGHTS, ATTENTION_WEIGHTS = _beside("expert_weights", "#54278f"), _beside("attention_weights", "#9e9ac8")
STEP = (
    *(HOST, DENSE, PROJECTIONS, ATTENTION, SEND_DISPATCH, RECEIVE_DISPATCH, SEND_COMBINE, RECEIVE_COMBINE, DOWN),
    *(EXPERT_WEIGHTS, ATTENTION_WEIGHTS, HEAD),
)
"""What a whole step runs beside its MoE layers, on the same lane: attention in two parts, dense layers as one piece,
kernels that post messages and take them in, the down GEMM where combine runs beside it, in training gradients of
weights."""
