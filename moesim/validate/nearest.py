"""The published measurement that is nearest to a run, so that a simulated time stands beside a measured one."""

import functools
import math
from dataclasses import dataclass

from moesim.alltoall_library import ALGORITHMS, algorithm_named
from moesim.located_yaml import parse_yaml
from moesim.results import Result
from moesim.validate.ledger import suspect
from moesim.validate.published import published_rows
from moesim.validate.published_row import TIME, Row

# How many doublings of ranks or tokens another GPU, or another type of token, counts as.
_OTHER_GPU, _OTHER_DTYPE = 3.0, 1.0


@dataclass(frozen=True)
class Setting:
    """What a run does in one phase, in the terms of a benchmark; ``tokens`` per rank."""

    algorithm: str
    gpu: str
    op: str
    ranks: int
    nodes: int
    tokens: float
    dtype: str
    hidden: int
    top_k: int


@dataclass(frozen=True)
class Near:
    """A published row and how far from it a run is: in words, and in doublings of size."""

    row: Row
    distance: float
    differences: tuple[str, ...]

    def line(self) -> str:
        """The row in one line of text."""
        row = self.row
        unit = "us" if row.quantity == TIME else "GB/s logical"
        said = f"{row.published:g} {unit}, {row.table} {row.key} ({row.source})"
        return said + ("; this run has " + ", ".join(self.differences) if self.differences else "; the same setting")


def nearest_of(result: Result, phase: str, hidden: int | None = None) -> Near | None:
    """Find the nearest row of a run's ``dispatch`` or ``combine``.

    Args:
        result: the run.
        phase: which of the two.
        hidden: the model's size; None to read it in the result's scenario.

    Raises:
        InputError: the result's scenario is damaged.
    """
    topology, alltoall = result.explanation["topology"], result.explanation["alltoall"][phase]
    return nearest(
        Setting(
            algorithm=alltoall["algorithm"],
            gpu=topology["gpu"],
            op=phase,
            ranks=topology["ranks"],
            nodes=topology["nodes"],
            tokens=round(float(result.summary["tokens"] or 0) / topology["ranks"], 1),
            dtype=alltoall["dtype"],
            hidden=_hidden_of(result.scenario_yaml) if hidden is None else hidden,
            top_k=result.explanation["router"]["top_k"],
        )
    )


@functools.lru_cache(maxsize=1)
def _hidden_of(scenario_yaml: str) -> int:
    scenario = parse_yaml(scenario_yaml, "scenario.resolved.yaml")
    try:
        return int(scenario.get(("model", "hidden")))
    except (KeyError, IndexError, TypeError, ValueError):
        raise scenario.error((), "expected a scenario with model.hidden", "run it again") from None


@functools.cache
def _rows() -> list[Row]:
    """The rows to be trusted, later releases first: of two with the same setting the later one counts."""
    return sorted((row for row in published_rows() if not suspect(row)), key=lambda row: row.release, reverse=True)


def nearest(setting: Setting) -> Near | None:
    """Find the nearest row of the same library and phase; None if there is none.

    Distances add up: doublings between ranks, nodes, tokens and hidden size, and a few for another GPU or type.
    """
    library = algorithm_named(setting.algorithm).benchmark if setting.algorithm in ALGORITHMS else None
    found = [_compared(setting, row) for row in _rows() if row.library == library and row.op == setting.op]
    return min(found, key=lambda near: near.distance, default=None)


def _compared(setting: Setting, row: Row) -> Near:
    distance, differences = 0.0, []
    for name, here, there in (
        ("ranks", setting.ranks, row.ranks),
        ("nodes", setting.nodes, row.nodes),
        ("tokens per rank", setting.tokens, row.tokens),
        ("hidden", setting.hidden, row.hidden),
        ("top-k", setting.top_k, row.top_k),
    ):
        if here != there:
            distance += abs(math.log2(max(here, 1) / max(there, 1)))
            differences.append(f"{here:g} {name} instead of {there:g}")
    if setting.gpu != row.gpu:
        distance += _OTHER_GPU
        differences.append(f"{setting.gpu} instead of {row.gpu}")
    if setting.dtype != row.dtype:
        distance += _OTHER_DTYPE
        differences.append(f"{setting.dtype} instead of {row.dtype}")
    return Near(row, distance, tuple(differences))
