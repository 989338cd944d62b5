"""What each number of the summary means, in one sentence with its unit: the report's hover text and ``explain``."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from moesim import stages


class Value(NamedTuple):
    """A number as it is shown: with the interval that it lies in where that is known, else None."""

    value: Any
    low: float | None = None
    high: float | None = None

    def words(self, written: Callable[[Any], str]) -> str:
        """Return the value, and the interval behind it where there is one; ``written`` writes one number.

        A unit that all three have is written once: ``269 us (214 to 339)``.
        """
        text = written(self.value)
        if self.low is None:
            return text
        low, high = written(self.low), written(self.high)
        unit = text.rpartition(" ")[2]
        if low.endswith(f" {unit}") and high.endswith(f" {unit}"):
            low, high = low.removesuffix(f" {unit}"), high.removesuffix(f" {unit}")
        return f"{text} ({low} to {high})"


class Definition(NamedTuple):
    """Unit and meaning of a summary value."""

    unit: str
    text: str


def _over_ranks(name: str, what: str) -> dict[str, Definition]:
    return {
        f"{name}_time_mean_s": Definition("s", f"{what}, mean over all ranks"),
        f"{name}_time_max_s": Definition("s", f"{what}, on the rank that it takes longest"),
    }


def _phase_bandwidths(phase: str) -> dict[str, Definition]:
    ports = "received" if phase == "dispatch" else "sent"
    return {
        f"{phase}_kernel_time_s": Definition("s", f"{phase} on the critical rank without layout, notify and CPU wait"),
        f"{phase}_algbw_bytes_per_s": Definition(
            "B/s", "nccl-tests algbw: the most that one rank sends, its own part included, over the slowest rank's time"
        ),
        f"{phase}_busbw_bytes_per_s": Definition("B/s", "nccl-tests busbw: algbw x (ranks - 1) / ranks"),
        f"{phase}_deepep_rdma_bytes_per_s": Definition(
            "B/s",
            "DeepEP's logical RDMA bandwidth: copies per distinct node, own node included (normal mode), or per "
            "selection (low latency), over the slowest rank's kernel time; not what the NIC carries",
        ),
        f"{phase}_deepep_nvl_bytes_per_s": Definition(
            "B/s", f"DeepEP's logical NVLink bandwidth: copies {ports} per distinct rank, own rank included, over time"
        ),
        **{
            f"{phase}_{link_class}_wire_bytes_per_s": Definition(
                "B/s", f"bytes on the busiest {word} link over the time from the {phase}'s first byte to its last"
            )
            for link_class, word in (("nvlink", "NVLink"), ("nic", "NIC"))
        },
    }


def _components() -> dict[str, Definition]:
    """What each part of a layer takes, on which rank, with the bandwidths of its phases."""
    said = {stage.component: stage.meaning for stage in stages.STAGES if stage.meaning}
    found: dict[str, Definition] = {}
    for name in stages.COMPONENTS[1:-1]:
        found[f"{name}_time_s"] = Definition("s", f"{said[name]}, on the critical rank")
        found |= _over_ranks(name, said[name]) if name in stages.OVER_RANKS else {}
        found |= _phase_bandwidths(name) if name in stages.PHASES else {}
    return found


def _summary() -> dict[str, Definition]:
    """The numbers in their order: ``data/summary.csv``, the parts of a layer at their place in it."""
    found: dict[str, Definition] = {}
    with (Path(__file__).parents[1] / "data" / "summary.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            of_stages = row["number"] == "(stages)"
            found |= _components() if of_stages else {row["number"]: Definition(row["unit"], row["meaning"])}
    return found


SUMMARY = _summary()

STEP_SUMMARY: dict[str, Definition] = {
    "tokens_per_second": Definition(
        "", "tokens of all ranks per second: of a prefill input, of a decode output, of training those of all pipelines"
    ),
    "tokens_per_second_per_node": Definition("", "the same of one full node"),
    "tokens_per_second_per_gpu": Definition("", "the same of one GPU"),
    "tpot_s": Definition("s", "time per output token of a request, drafted tokens that are accepted counted; decode"),
    "communication_hidden_share": Definition(
        "", "share of the ranks' time in dispatch and combine, waiting in them included, in which they compute too"
    ),
    "layer_period_s": Definition("s", "what one more MoE layer adds to a step, all micro-batches together"),
    "memory_free_bytes": Definition(
        "B",
        "memory of the fullest GPU that weights, buffers, KV cache and an estimated rest leave; below 0: too little",
    ),
    "model_layers": Definition("", "layers of a step, dense ones and those of drafted tokens with them"),
}
"""Numbers of whole steps: a summary of MoE layers alone has none of them."""

GROUP_SUMMARY: dict[str, Definition] = {
    "groups": Definition("", "expert-parallel groups on the cluster at once"),
    "group_layer_time_mean_s": Definition("s", "layer time of a group among the others, mean over the groups"),
    "group_layer_time_max_s": Definition("s", "layer time of the slowest group, of which all other numbers are"),
    "alone_layer_time_mean_s": Definition("s", "layer time of a group alone on the cluster, mean over the groups"),
    "alone_layer_time_max_s": Definition("s", "the same of the group that takes longest alone"),
    "contention_cost": Definition(
        "", "what a layer takes among the other groups over what it takes alone, both means over the groups"
    ),
    "contended_link": Definition(
        "", "the link of several groups that held their critical ranks back longest; none where no such link did"
    ),
}
"""Numbers of several expert-parallel groups on one cluster; a run of one group has none of them."""

TRAINING_SUMMARY: dict[str, Definition] = {
    "step_tokens": Definition("", "tokens of a training step, over all pipelines"),
    "gpus": Definition("", "GPUs of a training step: those of a group, times groups of a stage, times pipeline ranks"),
    "tokens_per_day": Definition("", "tokens that training takes in 24 hours"),
    "model_flops_per_second_per_gpu": Definition(
        "", "model FLOPs of a GPU per second: 6 per weight and token, 3 times causal core attention, nothing twice"
    ),
    "mfu": Definition("", "the same over the GPU's BF16 peak: causal model FLOPs utilisation"),
    "mfu_non_causal": Definition("", "MFU with core attention counted as if every token saw all of its sequence"),
    "pipeline_bubble_share": Definition(
        "", "share of a training step in which the busiest rank of a pipeline waits for a pass of another"
    ),
}
"""Numbers of training steps alone."""

DEFINITIONS = SUMMARY | STEP_SUMMARY | TRAINING_SUMMARY | GROUP_SUMMARY
"""Every number that a summary may have."""

COMPONENTS = tuple(f"{name}_time_s" for name in stages.COMPONENTS)
"""The parts of ``layer_time_s``, which they sum to: those of the critical rank."""

SOURCES = ("measured", "fitted", "interpolated", "estimated", "extrapolated")
