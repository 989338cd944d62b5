"""Numbers of the summary in words, and which of them share a chart wherever several results stand side by side."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moesim.report.charts import worded
from moesim.report.quantities import Floats, axis_scale, unit_of

_BANDWIDTHS = {
    "algbw": "algbw",
    "busbw": "busbw",
    "deepep_rdma": "DeepEP RDMA",
    "deepep_nvl": "DeepEP NVLink",
    "nic_wire": "wire, NIC",
    "nvlink_wire": "wire, NVLink",
}

WORDS = {
    "tokens_per_second_per_gpu": "tokens/s per GPU",
    "tpot_s": "time per output token",
    "step_time_s": "step time",
    "memory_free_bytes": "free memory",
    "layer_time_s": "layer time",
    "lower_bound_s": "lower bound",
    **{
        f"{name}_time_{of}s": f"{name.replace('_', ' ')}{words}"
        for name in ("dispatch", "combine", "expert_compute")
        for of, words in (("", ""), ("mean_", ", mean rank"), ("max_", ", slowest rank"))
    },
    "wait_time_s": "wait",
    "rank_wait_mean_s": "wait, mean rank",
    **{f"{noun}_load_max_over_mean": f"{noun}s max/mean" for noun in ("expert", "rank", "node", "link")},
    "max_violation": "MaxVio",
    "sequence_imbalance_p50": "sequence p50",
    "sequence_imbalance_p99": "sequence p99",
    "copies_per_token": "copies/token",
    "rank_copies_per_token": "ranks/token",
    "node_copies_per_token": "nodes/token",
    "nvlink_wire_bytes": "NVLink bytes",
    "nic_wire_bytes": "NIC bytes",
    **{
        f"{phase}_{name}_bytes_per_s": f"{phase} {words}"
        for phase in ("dispatch", "combine")
        for name, words in _BANDWIDTHS.items()
    },
    "gate_mass_lost": "gate mass lost",
    "expert_loss": "expert loss",
    "device_loss": "device loss",
    "communication_loss": "communication loss",
    "sequence_loss": "sequence loss",
    "z_loss": "z loss",
}
"""Numbers that pages show of every run or point, by their names in the summary."""


def in_words(key: str) -> str:
    """Name a number of the summary in words where it has some."""
    return WORDS.get(key, key)


class Drawn(NamedTuple):
    """Numbers of one chart: what they are of, and their names there."""

    key: str
    title: str
    caption: str
    label: str
    numbers: dict[str, str]


def _bandwidths(phase: str) -> Drawn:
    return Drawn(
        key=f"{phase}_bandwidth",
        title=f"{phase.capitalize()} bandwidth",
        caption="One phase under the names of the libraries' own benchmarks, which count different bytes, and on the "
        "busiest wire of each class.",
        label=f"{phase} bandwidth",
        numbers={f"{phase}_{name}_bytes_per_s": words for name, words in _BANDWIDTHS.items()},
    )


DRAWN = (
    Drawn(
        **worded("imbalance"),
        numbers={f"{noun}_load_max_over_mean": f"{noun}s" for noun in ("expert", "rank", "node", "link")},
    ),
    _bandwidths("dispatch"),
    _bandwidths("combine"),
    Drawn(**worded("bytes"), numbers={"nvlink_wire_bytes": "NVLink", "nic_wire_bytes": "NIC"}),
    Drawn(**worded("gate_mass"), numbers={"gate_mass_lost": "gate mass lost"}),
)
"""Charts of numbers, in the order in which pages show them."""


LOSSES = Drawn(
    **worded("losses"), numbers={f"{name}_loss": name for name in ("expert", "device", "communication", "sequence")}
)
"""The balance losses, which are drawn over their values in balance."""


def scaled(drawn: Drawn, column: Callable[[str], Floats]) -> tuple[dict[str, Floats], str]:
    """Return the numbers of a chart on one scale, by their names there, and the label of its axis.

    Numbers that apply nowhere, and chart for which nothing is left, give an empty dictionary.

    Args:
        drawn: the chart.
        column: values of a number of the summary, NaN where it does not apply.
    """
    found = {words: column(key) for key, words in drawn.numbers.items()}
    found = {words: values for words, values in found.items() if np.isfinite(values).any()}
    unit = unit_of(next(iter(drawn.numbers)))
    if not found or (unit == "%" and not any(np.nan_to_num(values).any() for values in found.values())):
        return {}, drawn.label
    if not unit:
        return found, drawn.label
    scale, name = (0.01, "%") if unit == "%" else axis_scale(np.concatenate(list(found.values())), unit)
    return {words: values / scale for words, values in found.items()}, f"{drawn.label} ({name})"
