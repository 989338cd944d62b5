"""From a finished sweep to its answer and its report: the plain values that the page takes, and the files beside it.

The command line and ``moesim.sweep`` both come through here. The folder gets ``report.html``, ``answer.json`` and,
where asked for, ``figures/``.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.files import write_files
from moesim.report import AxisEffect, SweepAxis, SweepData, answer_sentence, render_sweep, sweep_figures
from moesim.scenario import PATH_FIELDS, Objective, Scenario, is_path
from moesim.sweeps.answers import TRADED, Answer, answer, rows_of
from moesim.sweeps.points_table import number_of
from moesim.sweeps.space import Axis, Space, axis_label

if TYPE_CHECKING:
    import pyarrow as pa

ANSWER_FILE = "answer.json"
SCHEMA_VERSION = "1"

Command = Callable[[int], str]
"""What to type to run a point by itself."""


def answered(
    scenario: Scenario, space: Space, objective: Objective, table: "pa.Table", per: tuple[int, ...], command: Command,
    traded: tuple[str, ...] = TRADED,
) -> tuple[Answer, SweepData]:  # fmt: skip
    """Answer the objective, and put the sweep into the values that its page takes.

    Args:
        scenario: what the points have in common.
        space: the points.
        objective: what to be best at.
        table: all points.
        per: axes, by position, for each combination of whose values a best point is given.
        command: see ``command_for`` and ``snippet_for``.
        traded: what the front trades the objective against; smaller is better.
    """
    found = answer(space, objective, table, per, traded)

    shown = {
        axis.name: SweepAxis(axis.keys, tuple(tuple(map(axis_label, value)) for value in axis.values))
        for axis in space.axes
    }

    def in_words(name: str, values: tuple[Any, ...]) -> str:
        axis = shown[name]
        return axis.labels[axis.values.index(tuple(map(axis_label, values)))]

    points = table["point"].to_pylist()
    return found, SweepData(
        title=scenario.name,
        axes=tuple(shown.values()),
        places=np.array([space.places(point) for point in points], np.int64),
        columns={name: _column(table[name]) for name in table.column_names if name not in space.keys},
        objective=objective.text,
        key=objective.key,
        larger_is_better=objective.larger_is_better,
        limits={
            limit.text: np.array([limit.holds({limit.key: v}) for v in table[limit.key].to_pylist()], bool)
            for limit in objective.limits
        },
        best=found.best,
        front=found.front,
        effects=tuple(
            AxisEffect(
                name := one.axis,
                in_words(name, one.best),
                in_words(name, one.least),
                in_words(name, one.most),
                one.at_best,
                one.marginal,
            )
            for one in found.effects
        ),
        command=command,
        question=(scenario.sweep.question or "") if scenario.sweep else "",
        base=base_point(scenario, space),
        per=found.per,
        groups=tuple((group.places, group.best) for group in found.groups),
        losses_in_balance=_losses_in_balance(scenario, space),
        bounds={limit.key: limit.limit for limit in objective.limits},
    )


def _losses_in_balance(scenario: Scenario, space: Space) -> dict[str, float]:
    """Alpha of each loss in the paper's form: its value in balance; nothing where it differs between the points."""
    its = scenario.losses
    if its.form != "paper" or any(key.startswith("losses") for key in space.keys):
        return {}
    return {f"{name}_loss": getattr(its, name) for name in ("expert", "device", "communication", "sequence")}


def write_report(folder: Path, found: Answer, data: SweepData, space: Space, table: "pa.Table", figures: bool) -> None:
    """Write the page, the answer and, if wanted, every chart as SVG and PNG.

    Raises:
        ResourceError: the folder cannot be written.
    """
    text = json.dumps({"schema": SCHEMA_VERSION} | as_plain(found, data, space, table), indent=1, allow_nan=False)
    charts = sweep_figures(data) if figures else {}
    write_files(folder, {"report.html": render_sweep(data).encode(), ANSWER_FILE: (text + "\n").encode(), **charts})


def as_plain(found: Answer, data: SweepData, space: Space, table: "pa.Table") -> dict[str, Any]:
    """Return the answer as plain data."""
    names = list(dict.fromkeys((found.objective.key, *found.traded, *(limit.key for limit in found.objective.limits))))
    rows = rows_of(table, names)

    def described(point: int | None) -> dict[str, Any] | None:
        return None if point is None else {"point": point, "values": space.values(point), "summary": rows[point]}

    def values(places: tuple[int, ...]) -> dict[str, Any]:
        axes = [(space.axes[a], place) for a, place in zip(found.per, places, strict=True)]
        return {key: value for axis, place in axes for key, value in zip(axis.keys, axis.values[place], strict=True)}

    return {
        "name": data.title,
        "question": data.question or None,
        "answer": answer_sentence(data),
        "points": len(space),
        "counts": {status: data.status.count(status) for status in sorted(set(data.status))},
        "objective": found.objective.text,
        "points_within_limits": found.meeting,
        "base": data.base,
        "best": described(found.best),
        "best_per": [{"values": values(group.places), "best": described(group.best)} for group in found.groups],
        "front": [described(point) for point in found.front],
        "effects": [
            {
                "axis": effect.axis,
                "best": list(effect.best),
                "least": list(effect.least),
                "most": list(effect.most),
                "at_best_point": effect.at_best,
                "of_medians": effect.marginal,
            }
            for effect in found.effects
        ],
    }


def points_as_plain(data: SweepData, space: Space, table: "pa.Table") -> list[dict[str, Any]]:
    """Return one record per point: its values, status, bottleneck and the numbers of the page's table, in SI units."""
    names = ["status", "error", "bottleneck", *data.numbers]
    return [{"point": point, **space.values(point), **row} for point, row in rows_of(table, names).items()]


def base_point(scenario: Scenario, space: Space) -> int | None:
    """Return the point whose values are the scenario's own; None where there is none."""
    resolved = scenario.resolved()
    places = [_place(axis, resolved) for axis in space.axes]
    known = [place for place in places if place is not None]
    return space.point_at(known) if len(known) == len(places) else None


def _place(axis: Axis, resolved: Mapping[str, Any]) -> int | None:
    own = tuple(_comparable(_value_at(resolved, key)) for key in axis.keys)
    found = (i for i, values in enumerate(axis.values) if tuple(map(_comparable, values)) == own)
    return next(found, None)


def _value_at(data: Any, key: str) -> Any:
    for name in key.split("."):
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _comparable(value: Any) -> tuple[str, Any]:
    """A quantity by its size, anything else by what it is: ``400Gb/s`` and ``50GB/s`` are the same."""
    number = number_of(value)
    return ("number", float(number)) if number is not None else ("text", axis_label(value))


def _column(column: "pa.ChunkedArray") -> Any:
    """Numbers as an array, NaN where there is none: of many points lists would be large."""
    import pyarrow as pa

    number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return column.to_numpy() if number else column.to_pylist()


def command_for(scenario: Scenario, typed: str, overrides: Sequence[str], space: Space) -> Command:
    """What to type to run one point by itself, for a shell.

    Args:
        scenario: what the points have in common.
        typed: its file or name, as typed.
        overrides: of every point, as typed.
        space: the points.
    """

    def command(point: int) -> str:
        options = [word for value in (*overrides, *_overrides(scenario, space, point)) for word in ("-o", value)]
        return shlex.join(["moesim", "run", typed, *options, "--out", f"results/point-{point}"])

    return command


def snippet_for(scenario: Scenario, space: Space, given: str) -> Command:
    """What to write in Python to run one point by itself, ``given`` being what was swept: plain data."""

    def command(point: int) -> str:
        return f"moesim.simulate(moesim.load_scenario({given}, overrides={_overrides(scenario, space, point)}))"

    return command


def _overrides(scenario: Scenario, space: Space, point: int) -> list[str]:
    def text(key: str, value: Any) -> str:
        if tuple(key.split(".")) in PATH_FIELDS and isinstance(value, str) and is_path(value):
            # Paths of the scenario's own axes start in its folder, typed ones in the current folder.
            return str(scenario.base_dir / value)
        return axis_label(value)

    return [f"{key}={text(key, value)}" for key, value in space.values(point).items()]
