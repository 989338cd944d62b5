"""What stands behind a rebalanced run: bytes of an expert, memory of redundant slots, what the fixed time rests on."""

from collections.abc import Iterator
from typing import Any

from moesim.layer import Parts
from moesim.placement import expert_bytes
from moesim.results import Note
from moesim.scenario import Rebalance
from moesim.traffic import weight_transfer
from moesim.units import format_duration


def slot_bytes(parts: Parts) -> int:
    """Return the bytes of one expert's weights; their type is that of the dispatched tokens, as of the GEMM."""
    return expert_bytes(parts.model.sent, parts.model.expert_hidden, parts.message_dtype["dispatch"])


def rebalancing(parts: Parts, asked: Rebalance, moe_layers: int) -> dict[str, Any]:
    """Return what the result says of its rebalancing, JSON-able; redundant slots are those of all layers."""
    transfer = weight_transfer(asked.mode, asked.fixed_time)
    redundant = (parts.n_slots - parts.model.n_experts) * slot_bytes(parts) * moe_layers
    return {
        "every": asked.every,
        "policy": asked.policy,
        "mode": asked.mode,
        "expert_bytes": slot_bytes(parts),
        "redundant_bytes": redundant,
        "redundant_bytes_per_rank": redundant / parts.fabric.n_ranks,
        "fixed_s": transfer.fixed_s,
        "fixed_range_s": list(transfer.fixed_range_s),
        "efficiency": dict(transfer.efficiency),
        "source": transfer.source,
    }


def rebalancing_notes(parts: Parts, asked: Rebalance) -> Iterator[Note]:
    """Say what the times of a rebalanced run rest on."""
    if parts.workload.steps <= asked.every:
        steps = f"every {asked.every} steps, and the run has {parts.workload.steps}"
        yield Note("info", f"placement.rebalance: {steps}: nothing moves")
        return
    transfer = weight_transfer(asked.mode, asked.fixed_time)
    least, most = map(format_duration, transfer.fixed_range_s)
    yield Note(
        "estimated",
        f"a rearrangement takes {format_duration(transfer.fixed_s)} for each layer beside its bytes (published: "
        f"{least} to {most}), which is not in the intervals: {transfer.source}",
    )
