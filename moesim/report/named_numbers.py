"""Numbers of the summary in words, and which of them share a chart wherever several results stand side by side."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

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
        key="imbalance",
        title="Imbalance",
        caption="Most loaded over mean. Experts show how well a router balances, ranks how long the expert compute "
        "takes, nodes how long the wires between nodes are busy; links are those of the class that holds the layer "
        "back.",
        label="max/mean",
        numbers={f"{noun}_load_max_over_mean": f"{noun}s" for noun in ("expert", "rank", "node", "link")},
    ),
    _bandwidths("dispatch"),
    _bandwidths("combine"),
    Drawn(
        key="bytes",
        title="Bytes on the wires",
        caption="Bytes on the sender ports of each link class, dispatch and combine, per layer.",
        label="bytes per layer",
        numbers={"nvlink_wire_bytes": "NVLink", "nic_wire_bytes": "NIC"},
    ),
    Drawn(
        key="gate_mass",
        title="Gate mass lost",
        caption="What the group limit costs: the part of the scores that a free choice of experts would have had.",
        label="gate mass lost",
        numbers={"gate_mass_lost": "gate mass lost"},
    ),
)
"""Charts of numbers, in the order in which pages show them."""


LOSSES = {"expert_loss": "expert", "device_loss": "device", "communication_loss": "communication",
          "sequence_loss": "sequence"}  # fmt: skip
LOSSES_TITLE = "Balance losses"
LOSSES_CAPTION = "Each loss over its value where experts and devices are loaded alike, which has the same factors."
LOSSES_LABEL = "× the loss in balance"


def scaled(drawn: Drawn, column: Callable[[str], Floats]) -> tuple[dict[str, Floats], str]:
    """Return the numbers of a chart on one scale, by their names there, and the label of its axis.

    Numbers that apply nowhere, and chart for which nothing is left, give an empty dictionary. ``drawn``: the chart;
    ``column``: values of a number of the summary, NaN where it does not apply.
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
