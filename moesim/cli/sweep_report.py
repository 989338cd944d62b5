"""From a finished sweep to its page: axes, points and answer as the plain values that the report takes."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from moesim.scenario import Scenario
    from moesim.sweeps.answers import Answer
    from moesim.sweeps.space import Space


def sweep_page(scenario: "Scenario", typed: str, overrides: Sequence[str], space: "Space", found: "Answer",
               table: "pa.Table") -> str:  # fmt: skip
    """Write the report of a sweep.

    Args:
        scenario: what the points have in common.
        typed: its file or name, as typed.
        overrides: of every point, as typed.
        space: the points.
        found: the answer to the objective.
        table: all points.
    """
    import numpy as np

    from moesim.report import AxisEffect, SweepAxis, SweepData, render_sweep
    from moesim.sweeps.space import axis_label

    def told(values: tuple[Any, ...]) -> str:
        return " / ".join(map(axis_label, values))

    points = table["point"].to_pylist()
    columns = {name: _column(table[name]) for name in table.column_names if name not in space.keys}
    return render_sweep(
        SweepData(
            title=scenario.name,
            axes=tuple(
                SweepAxis(axis.keys, tuple(tuple(map(axis_label, value)) for value in axis.values))
                for axis in space.axes
            ),
            places=np.array([space.places(point) for point in points], np.int64),
            columns=columns,
            objective=found.objective.text,
            key=found.objective.key,
            larger_is_better=found.objective.larger_is_better,
            limits={
                limit.text: np.array([limit.holds({limit.key: v}) for v in table[limit.key].to_pylist()], bool)
                for limit in found.objective.limits
            },
            best=found.best,
            front=found.front,
            effects=tuple(
                AxisEffect(one.axis, told(one.best), told(one.least), told(one.most), one.at_best, one.marginal)
                for one in found.effects
            ),
            command=lambda point: _command(scenario, typed, overrides, space, point),
        )
    )


def _column(column: "pa.ChunkedArray") -> Any:
    """Numbers as an array, NaN where there is none: of many points lists would be large."""
    import pyarrow as pa

    number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return column.to_numpy() if number else column.to_pylist()


def _command(scenario: "Scenario", typed: str, overrides: Sequence[str], space: "Space", point: int) -> str:
    """What to type to run one point by itself, for a shell."""
    from moesim.scenario.files import is_path
    from moesim.scenario.load import PATH_FIELDS
    from moesim.sweeps.space import axis_label

    def text(key: str, value: Any) -> str:
        if tuple(key.split(".")) in PATH_FIELDS and isinstance(value, str) and is_path(value):
            # Paths of the scenario's own axes start in its folder, typed ones in the current folder.
            return str(scenario.base_dir / value)
        return axis_label(value)

    values = [f"{key}={text(key, value)}" for key, value in space.values(point).items()]
    options = [word for value in (*overrides, *values) for word in ("-o", value)]
    return shlex.join(["moesim", "run", typed, *options, "--out", f"results/point-{point}"])
