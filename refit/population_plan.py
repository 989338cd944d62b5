"""Which rows and which constants the sets over clusters are fitted to: ``data/over_clusters.yaml``, read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml import YAML

from moesim.traffic import CalibrationSet, Place, find_set, with_value
from moesim.validate.published_row import Row
from refit.free_constants import places_of
from refit.population import Constant

# DeepEP V2's README names architectures only.
_ARCHITECTURE = {"sm90": "h100", "sm100": "b200"}


@dataclass(frozen=True)
class Plan:
    """What is fitted of one algorithm over clusters.

    Attributes:
        library: whose rows.
        start: set to begin with.
        given: constants that the set to begin with lacks or that begin elsewhere, by place.
        constants: to be fitted.
    """

    library: str
    start: str
    given: Mapping[Place, float]
    constants: tuple[Constant, ...]

    def begin(self, algorithm: str) -> CalibrationSet:
        """The terms to begin with."""
        made = find_set(algorithm, "h100", self.start)
        for place, value in self.given.items():
            made = with_value(made, place, value)
        return made


_FILE = YAML(typ="safe").load((Path(__file__).parent / "data" / "over_clusters.yaml").read_text(encoding="utf-8"))
PLANS: dict[str, Plan] = {
    algorithm: Plan(
        plan["library"],
        plan["start"],
        {place: value for text, value in plan["given"].items() for place in places_of(text)},
        tuple(
            Constant(**one | {"places": places_of(one["places"]), "answers": tuple(one.get("answers", ()))})
            for one in plan["constants"]
        ),
    )
    for algorithm, plan in _FILE["plans"].items()
}
"""By algorithm."""


def rows_over_clusters(rows: Iterable[Row], plan: Plan) -> list[Row]:
    """The rows that a plan is fitted to, each with its cluster.

    Args:
        rows: published rows that are not suspect, healthy rows of clusters among them.
        plan: of an algorithm.
    """
    found: list[Row] = []
    for row in rows:
        cluster = row.cluster or _FILE["clusters"].get(row.table)
        if row.library != plan.library or cluster is None or not _fits(row, plan):
            continue
        found.append(replace(row, cluster=cluster, gpu=_ARCHITECTURE.get(row.gpu, row.gpu)))
    return found


def _fits(row: Row, plan: Plan) -> bool:
    sizes = _FILE["tokens"].get(row.table)
    if row.ranks > _FILE["most_ranks"].get(row.library, 64) or (sizes and row.tokens not in sizes):
        return False
    if row.release in ("2025-02-25",) or (plan.library == "deepep-v2" and row.nodes == 1):
        return False
    if row.table in ("aic-normal-dispatch", "aic-normal-combine"):
        return row.sms in (12, 24)
    # pplx-garden's table of normal mode: its dispatch does not fit its own neighbours.
    return not (row.table == "deepep-v1-h100-cx7" and row.op == "dispatch") and (
        row.table != "aic-ll" or row.experts == 256
    )


def clusters_of(rows: Sequence[Row]) -> list[str]:
    """The machines, sorted."""
    return sorted({row.cluster for row in rows})
