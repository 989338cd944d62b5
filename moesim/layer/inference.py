"""What a whole inference step is beside its MoE layers: the model's other parts, its requests, the free constants."""

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
class Inference:
    """A step of prefill or decode.

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

    @property
    def tokens_kept(self) -> float:
        """Output tokens of each token that a decode step computes: what is left where drafts are refused."""
        return (1 + (self.query_tokens - 1) * self.acceptance) / self.query_tokens

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
    return Inference(
        spec=scenario.model_spec(),
        decode=schedule.phase == "decode",
        overlap=schedule.overlap,
        lengths=workload.lengths,
        query_tokens=workload.query_tokens,
        acceptance=workload.acceptance or 0.0,
        micro_batches=2 if schedule.overlap == "two-batch" else 1,
        library_date=scenario.compute.library_date,
        attention_dtype=scenario.compute.attention_dtype,
        hooks=receive_hook and scenario.alltoall.receive_hook,
        constants=step_constants(),
    )
