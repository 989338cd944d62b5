"""What a whole step is beside its MoE layers: the model's other parts, its requests, the free constants.

A step is one of inference, or where ``training`` is given a forward pass of a training step and a backward one.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moesim.compute import StepConstants, step_constants
from moesim.model import ModelSpec
from moesim.scenario import Scenario, Workload


class Requests(NamedTuple):
    """The requests of one GPU: tokens that each keeps, how many there are, new tokens of each in a step."""

    context: int
    requests: int
    new: int


@dataclass(frozen=True)
class Training:
    """What a training step is beside one expert-parallel group's passes.

    Attributes:
        pipeline: by which order; ``ranks`` of one pipeline; ``micro_batches`` that pass it in a step.
        stage_layers: layers of every stage; ``whole`` or ``even`` as the schedule has them.
        mtp_layers: multi-token-prediction layers trained with the model.
        recompute: norms, activations and MLA up-projections are computed again on the way back.
        groups: expert-parallel groups of a stage, which share gradients.
    """

    pipeline: str
    ranks: int
    micro_batches: int
    stage_layers: str | tuple[int, ...]
    mtp_layers: int
    recompute: bool
    groups: int

    @property
    def overlapped(self) -> bool:
        """Whether a rank holds two stages, so that a forward pass of one runs beside a backward one of the other."""
        return self.pipeline.startswith("dualpipe")

    @property
    def stages(self) -> int:
        """Parts of the model; DualPipeV's ranks hold two each, DualPipe's two of which another rank has a copy."""
        return self.ranks * (2 if self.pipeline == "dualpipev" else 1)


@dataclass(frozen=True)
class Inference:
    """A step of prefill or decode, or the passes of a training step.

    Attributes:
        lengths: tokens of the prompts, or what each request keeps; prompts and requests take them evenly.
        query_tokens: of a request in a step: one, and those drafted.
        acceptance: mean accepted share of the drafted ones.
        micro_batches: parts of the batch that overlap.
        library_date: kernels as released by this day; None: as the tables have them.
        attention_dtype: of core attention and its cache.
        hooks: sends and receives are kernels of their own.
    """

    spec: ModelSpec
    decode: bool
    overlap: str
    lengths: tuple[int, ...]
    query_tokens: int
    acceptance: float
    micro_batches: int
    library_date: str | None
    attention_dtype: str
    hooks: bool
    constants: StepConstants
    training: Training | None = None

    @property
    def tokens_kept(self) -> float:
        """Output tokens of each token that a decode step computes: what is left where drafts are refused."""
        return (1 + (self.query_tokens - 1) * self.acceptance) / self.query_tokens

    @property
    def passes(self) -> int:
        """Through every layer: of micro-batches that overlap, or forward and back."""
        return self.micro_batches if self.training is None else 2

    @property
    def moe_layers(self) -> int:
        """MoE layers of a step; each drafted token passes one more layer, that of multi-token prediction."""
        return self.spec.moe_layers + self.query_tokens - 1

    @property
    def plain_layers(self) -> int:
        """Layers with attention and no experts."""
        return self.spec.layers - self.spec.moe_layers


def requests_of(step: Inference, workload: Workload) -> Requests | None:
    """Return what the fullest GPU has, lengths by their mean; None where the recorded tokens are shared evenly."""
    length = max(round(float(np.mean(step.lengths))), 1)
    if step.decode:
        return Requests(length, workload.requests or 1, step.query_tokens)
    if workload.tokens_per_rank is None:
        return None
    return Requests(length, max(round(float(np.max(workload.tokens_per_rank)) / length), 1), length)


def inference_of(scenario: Scenario, receive_hook: bool) -> Inference | None:
    """Return the step of a scenario; None where it is about MoE layers alone.

    Raises:
        InputError: the model's file is no longer there.
    """
    workload, schedule = scenario.workload, scenario.schedule
    if not workload.of_step:
        return None
    spec = scenario.model_spec()
    training = _training(scenario, spec) if schedule.phase == "training" else None
    overlap = schedule.overlap if training is None or not training.overlapped else "two-batch"
    return Inference(
        spec=spec,
        decode=schedule.phase == "decode",
        overlap=overlap,
        lengths=workload.lengths,
        query_tokens=workload.query_tokens,
        acceptance=workload.acceptance or 0.0,
        # Both passes of training are of whole micro-batches.
        micro_batches=2 if overlap == "two-batch" and training is None else 1,
        library_date=scenario.compute.library_date,
        attention_dtype=scenario.compute.attention_dtype,
        hooks=receive_hook and scenario.alltoall.receive_hook,
        constants=step_constants(),
        training=training,
    )


def _training(scenario: Scenario, spec: ModelSpec) -> Training:
    schedule, parallel = scenario.schedule, scenario.parallel
    return Training(
        pipeline=schedule.pipeline,
        ranks=parallel.pp,
        micro_batches=schedule.micro_batches or 1,
        stage_layers=schedule.stage_layers,
        mtp_layers=spec.mtp_layers if schedule.mtp_layers is None else schedule.mtp_layers,
        recompute=schedule.recompute == "selective",
        groups=parallel.groups,
    )
