"""What an inference step takes beside its kernels: free constants, frozen, each with range and source.

One file, ``data/step_constants.yaml``, has them all: times of hooks, launches and the host, shares of the memory's peak
that small kernels reach, and how much longer kernels of earlier releases take than those in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from moesim.compute.gpus import DATA, Gpu, load_gpu
from moesim.located_yaml import load_yaml

_FLASHMLA_GPU = "h800"


@dataclass(frozen=True)
class Constant:
    """A free constant, and where it may lie."""

    value: float
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class StepConstants:
    """The constants of a step, in seconds and shares; the names are those of the file, which says what each is."""

    hook_s: float
    launch_gap_s: float
    host_s: float
    gate_chain_prefill_s: float
    gate_chain_decode_s: float
    attention_memory_share: float
    expert_memory_share: float
    index_maps_s: float
    in_situ: float
    attention_peak_share: float
    attention_backward_share: float
    weight_gradient: float
    backward_small: float
    optimizer_bytes: float
    collective_share: float
    fp8_attention_speedup: float

    def moved(self, **values: float) -> StepConstants:
        """Return the constants with other values."""
        return replace(self, **values)


@cache
def _file() -> Any:
    return load_yaml(DATA / "step_constants.yaml").data


def free_constants() -> dict[str, Constant]:
    """Return every free constant with its range and source."""
    return {field.name: Constant(**_file()[field.name]) for field in fields(StepConstants)}


def step_constants() -> StepConstants:
    """Return the frozen values."""
    return StepConstants(**{name: constant.value for name, constant in free_constants().items()})


def release_factor(kernel: str, date: str | None) -> float:
    """Return how much longer ``kernel`` took as released by ``date`` (ISO) than in the tables; None: as there."""
    if date is None:
        return 1.0
    return next((one["factor"] for one in _file()["releases"] if kernel in one["kernels"] and date < one["until"]), 1.0)


def most_flops(gpu: Gpu, date: str | None) -> float:
    """Return the most that FlashMLA published by ``date``, FLOP/s, at the GPU's share of the H800's peak."""
    rates = _file()["flashmla"]
    rate = next(one["flops"] for one in rates if one["until"] is None or (date and date < one["until"]))
    return float(rate) * gpu.bf16_flops / load_gpu(_FLASHMLA_GPU).bf16_flops
