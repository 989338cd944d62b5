"""DeepSeek's published training trace beside the same four layers on the clock, forward and back beside each other.

Loads are dealt evenly, as in the trace. Its dispatch and combine kernels hold their waiting for peers; its share hidden
behind compute is 96.6 %, with the notify kernels 96.3 %.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moesim.run import simulate
from moesim.validate.published_steps import Step
from moesim.validate.step_rows import scenario_of

_PARTS = {
    "attention part of a forward layer, busy": ("projections", "attention", "gate"),
    "expert part of a forward layer, busy": ("permute", "expert_compute", "shared_expert", "unpermute"),
}


class Compared(NamedTuple):
    """A figure of the trace and the simulated one, in the same unit."""

    metric: str
    published: float
    simulated: float
    unit: str


def training_trace(steps: Sequence[Step]) -> list[Compared]:
    """Return what the table has of the trace; nothing where it has no trace, or no step of the same settings."""
    rows = {step.row["metric"]: step for step in steps if step.row["kind"] == "trace-train"}
    alike = next((step for step in steps if step.training and step.named), None)
    if not rows or alike is None:
        return []
    settings = {key: value for key, value in alike.settings.items() if key != "workload.recording"}
    with tempfile.TemporaryDirectory() as folder:
        result = simulate(scenario_of(replace(alike, settings=settings), Path(folder)))
    made, spans = result.explanation["training"], result.tables.columns("spans")
    name, lane, way = (np.asarray(spans[column]) for column in ("phase", "lane", "micro_batch"))
    seconds = np.asarray(spans["end_s"]) - np.asarray(spans["start_s"])
    ranks, layers = int(np.asarray(spans["rank"]).max()) + 1, made["chunk_layers"]
    found = {
        "4 layers forward + 4 backward, span": made["pair_s"] * 1e6,
        "compute streams busy, union": float(seconds[lane == "compute"].sum()) / ranks * 1e6,
        "dispatch and combine kernels hidden behind compute": made["pair_hidden_share"] * 100,
    } | {
        metric: float(seconds[np.isin(name, parts) & (way == 0)].sum()) / ranks / layers * 1e6
        for metric, parts in _PARTS.items()
    }
    return [
        Compared(metric, rows[metric].measured, value, rows[metric].row["unit"])
        for metric, value in found.items()
        if metric in rows
    ]
