"""A finished sweep as text on a terminal."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from moesim.cli.show import console, table, with_unit

if TYPE_CHECKING:
    import pyarrow as pa

    from moesim.report import SweepData
    from moesim.sweeps.answers import Answer
    from moesim.sweeps.space import Space

_MOST_ROWS = 20
_MOST_FAILED = 10


def print_sweep(space: "Space", found: "Answer", data: "SweepData", points: "pa.Table", folder: Path) -> None:
    """Print question and answer, the best points, and how much each axis matters."""
    from moesim.report.sweep_answer import answer_sentence

    out = console()
    if data.question:
        out.print(data.question, style="bold", soft_wrap=True)
    out.print(answer_sentence(data), soft_wrap=True)
    out.print(f"{data.title}: {len(space):,} points: {data.counted()}")
    if found.best is not None:
        _print_best(found, data, points)
        _print_effects(found, data)
    out.print(f"points: {folder / 'points.parquet'}")
    out.print(f"report: {folder / 'report.html'}")


def _print_best(found: "Answer", data: "SweepData", points: "pa.Table") -> None:
    from moesim.results import BANDED, ENDS, Value
    from moesim.sweeps.answers import rows_of

    out, objective = console(), found.objective
    names = list(dict.fromkeys((objective.key, *found.traded, *(limit.key for limit in objective.limits))))
    ends = [f"{name}_{end}" for name in names if name in BANDED for end in ENDS]
    rows = rows_of(points, [*names, *ends, "bottleneck"])

    def words(point: int, name: str) -> str:
        row = rows[point]
        known = [row[f"{name}_{end}"] for end in ENDS] if name in BANDED else []
        return Value(row[name], *known).words(lambda number: with_unit(name, number))

    def line(point: int) -> list[Any]:
        axes = zip(data.axes, data.places[point], strict=True)
        return [
            f"{'*' if point == found.best else ' '} {point}",
            *(axis.values[place][k] for axis, place in axes for k in axis.told_by),
            *(words(point, name) for name in names),
        ]

    columns = ("point", *(key for axis in data.axes for key in axis.told_keys), *names)
    if found.groups:
        per = " and ".join(" + ".join(data.axes[a].told_keys) for a in found.per)
        best = [group.best for group in found.groups if group.best is not None]
        out.print(f"best for each {per}", soft_wrap=True)
        out.print(table("", columns, map(line, best[:_MOST_ROWS])))
        _print_left(len(best) - _MOST_ROWS, "in the report")
    out.print(f"best (*) for {objective.text}, and the points that no other beats in all of these", soft_wrap=True)
    shown = list(dict.fromkeys(point for point in (found.best, *found.front) if point is not None))
    out.print(table("", columns, map(line, shown[:_MOST_ROWS])))
    _print_left(len(shown) - _MOST_ROWS, "on the front")
    out.print(f"bottleneck at the best point: {rows[shown[0]]['bottleneck']}", soft_wrap=True)


def _print_left(number: int, where: str) -> None:
    if number > 0:
        console().print(f"and {number} more {where}")


def _print_effects(found: "Answer", data: "SweepData") -> None:
    out = console()
    told = {axis.name: " + ".join(axis.told_keys) for axis in data.axes}
    effects = [
        (told[effect.axis], effect.best, effect.least, effect.most, _percent(effect.at_best), _percent(effect.marginal))
        for effect in data.effects
    ]
    out.print(
        f"effect of each axis on {found.objective.key}, the others at the best point; and on its medians",
        soft_wrap=True,
    )
    out.print(table("", ("axis", "best point", "least", "most", "least to most", "medians"), effects))


def print_lost(points: "pa.Table", status: str) -> None:
    """Name the points of a status with their errors, on stderr."""
    lost = [
        (number, error)
        for number, its, error in zip(*(points[name].to_pylist() for name in ("point", "status", "error")), strict=True)
        if its == status
    ]
    for number, error in lost[:_MOST_FAILED]:
        typer.echo(f"point {number} {status}: {error}", err=True)
    if len(lost) > _MOST_FAILED:
        typer.echo(f"and {len(lost) - _MOST_FAILED} more: see the table's column error", err=True)


def _percent(change: float | None) -> str:
    return "-" if change is None else f"{change:+.1%}"
