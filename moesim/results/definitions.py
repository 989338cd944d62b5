"""What each number of the summary means, in one sentence with its unit: the report's hover text and ``explain``."""

from collections.abc import Callable
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


SUMMARY: dict[str, Definition] = {
    "name": Definition("", "name of the scenario"),
    "layer_time_s": Definition(
        "s", "from the first rank's entry into the MoE layer to the last rank's end, averaged over the layers"
    ),
    "lower_bound_s": Definition(
        "s",
        "what no schedule beats, largest over ranks of: busiest own dispatch port's bytes that it waits for / peak + "
        "floor time of its routed experts + busiest own combine port's bytes sent that wait for it / peak; and over "
        "links that ranks share of: all its bytes / peak + the least that must come after them, or before them",
    ),
    "step_time_s": Definition("s", "a whole step, from the first entry to the last end, averaged over the steps"),
    "arrival_time_s": Definition("s", "how much later than the first rank the critical rank entered the layer"),
    **_components(),
    "wait_time_s": Definition(
        "s", "time of the critical rank in dispatch or combine with none of its own flows in progress"
    ),
    "rank_wait_mean_s": Definition(
        "s", "wait in dispatch and combine, mean over all ranks: the cost of the last rank to enter"
    ),
    "bottleneck": Definition("", "what holds most of the critical rank's time: a link class, compute, or a rank"),
    "bottleneck_utilisation": Definition("", "share of what the busiest link of the bottleneck class could carry"),
    "expert_load_max_over_mean": Definition("", "tokens of the most loaded expert over the mean"),
    "rank_load_max_over_mean": Definition("", "selections computed on the most loaded rank over the mean"),
    "node_load_max_over_mean": Definition("", "selections computed on the most loaded node over the mean"),
    "link_load_max_over_mean": Definition("", "bytes on the busiest port of the bottleneck class over its mean"),
    "expert_load_mean_over_max": Definition("", "mean tokens per expert over the most loaded expert's"),
    "rank_load_mean_over_max": Definition("", "mean selections per rank over the most loaded rank's"),
    "node_load_mean_over_max": Definition("", "mean selections per node over the most loaded node's"),
    "link_load_mean_over_max": Definition("", "mean bytes of the bottleneck class's ports over the busiest port's"),
    "rank_max_violation": Definition("", "(max - mean) / mean over ranks"),
    "node_max_violation": Definition("", "(max - mean) / mean over nodes"),
    "link_max_violation": Definition("", "(max - mean) / mean over the ports of the bottleneck class"),
    "uniform_router_expert_max_over_mean": Definition(
        "", "noise floor: what a perfectly uniform router gives at this number of distinct tokens"
    ),
    "sequence_imbalance_p50": Definition("", "median over sequences of max/mean expert load within the sequence"),
    "sequence_imbalance_p99": Definition("", "99th percentile of the same"),
    "max_violation": Definition("", "MaxVio: (max - mean) / mean over experts (arXiv:2408.15664)"),
    "copies_per_token": Definition("", "selections per token that were dispatched"),
    "rank_copies_per_token": Definition("", "distinct ranks per token, own rank included"),
    "node_copies_per_token": Definition("", "distinct nodes per token, own node included"),
    "nvlink_wire_bytes": Definition("B", "bytes on NVLink sender ports, dispatch and combine, per layer"),
    "nic_wire_bytes": Definition("B", "bytes on NIC sender ports, dispatch and combine, per layer"),
    "gate_mass_lost": Definition(
        "", "1 - scores of the selected experts / scores of the unrestricted top-k: what the device limit costs"
    ),
    "expert_loss": Definition("", "expert-level balance loss"),
    "device_loss": Definition("", "device-level balance loss"),
    "communication_loss": Definition("", "communication balance loss"),
    "sequence_loss": Definition("", "sequence-wise balance loss"),
    "z_loss": Definition("", "router z-loss"),
    "tokens": Definition("", "tokens in the batch, over all ranks"),
    "distinct_tokens": Definition("", "distinct tokens among them"),
    "ranks": Definition("", "ranks of the expert-parallel group"),
    "layers": Definition("", "layers simulated"),
    "seed": Definition("", "seed of the scenario"),
    "counterfactual": Definition("", "true when the router is not the one that the logits were trained with"),
    "source_measured_share": Definition("", "share of compute time from measured kernels"),
    "source_fitted_share": Definition("", "share of compute time from fitted kernel models"),
    "source_interpolated_share": Definition("", "share of compute time interpolated between measured kernels"),
    "source_estimated_share": Definition("", "share of compute time from a roofline: an estimate"),
    "source_extrapolated_share": Definition("", "share of compute time outside the range measured"),
}

STEP_SUMMARY: dict[str, Definition] = {
    "tokens_per_second": Definition("", "tokens of all ranks per second: of a prefill input, of a decode output"),
    "tokens_per_second_per_node": Definition("", "the same of one full node"),
    "tokens_per_second_per_gpu": Definition("", "the same of one GPU"),
    "tpot_s": Definition("s", "time per output token of a request, drafted tokens that are accepted counted; decode"),
    "communication_hidden_share": Definition(
        "", "share of the ranks' time in dispatch and combine, waiting in them included, in which they compute too"
    ),
    "layer_period_s": Definition("s", "what one more MoE layer adds to a step, all micro-batches together"),
    "model_layers": Definition("", "layers of a step, dense ones and those of drafted tokens with them"),
}
"""Numbers of whole inference steps: a summary of MoE layers alone has none of them."""

DEFINITIONS = SUMMARY | STEP_SUMMARY
"""Every number that a summary may have."""

COMPONENTS = tuple(f"{name}_time_s" for name in stages.COMPONENTS)
"""The parts of ``layer_time_s``, which they sum to: those of the critical rank."""

SOURCES = ("measured", "fitted", "interpolated", "estimated", "extrapolated")
