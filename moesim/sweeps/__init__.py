"""Sweeps: one scenario at many values, on one machine or many, each point once.

``moesim.sweep`` is the function of this package; the package is called ``sweeps`` because a module of the same name as
the function would take its place once imported.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from moesim.scenario import Scenario, load_scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from moesim.report import SweepData
    from moesim.sweeps.answers import Answer
    from moesim.sweeps.workers import Workers

__all__ = ["sweep"]


def sweep(
    scenario: Scenario | str | Path | Mapping[str, Any],
    axes: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    *,
    jobs: int = 1,
    together: Sequence[Mapping[str, Any]] = (),
    random: int | None = None,
    random_seed: int = 0,
    impossible: Literal["refuse", "skip"] | None = None,
    out: str | Path | None = None,
    objective: str | None = None,
    per: Sequence[str] | None = None,
    figures: bool = False,
) -> "pd.DataFrame":
    """Simulate a scenario at every combination of some values.

    ``moesim.sweep("quickstart", {"routing.top_k": [2, 4, 8], "routing.top_groups": "1..4"}, impossible="skip")``

    Args:
        scenario: from ``moesim.load_scenario``, or what that takes.
        axes: dotted key -> values, a list or text such as ``1..8``; added to the axes of the scenario's ``sweep``
            block, whose axes of the same name they replace.
        executor: runs the points, with ``jobs`` of them at once; a ``concurrent.futures.Executor`` such as Dask's
            ``Client.get_executor()``. None: this process for one job, so many new processes for more (a script then
            needs ``if __name__ == "__main__":``).
        jobs: points at once.
        together: axes of several keys each, which move together: ``[{"model.n_experts": [8, 16], ...: [...]}]``.
        random: draw this many of the combinations instead of taking all.
        random_seed: seed of that draw.
        impossible: ``refuse`` to run anything if a point is impossible, or ``skip`` such points (rows without numbers);
            None for what the block says.
        out: folder with journal, table, report and answer, in which an interrupted sweep resumes; None for nothing on
            disk.
        objective: what the report calls best, such as ``layer_time_s where gate_mass_lost < 0.01``; None for what the
            block says.
        per: keys of axes: the report also lists the best point for each combination of their values; None for what the
            block says.
        figures: write every chart of the report as SVG and PNG too.

    Returns:
        One row per point: ``point``, the axes, ``status`` (ok, failed, impossible), ``error``, ``bottleneck`` and every
        number of the summary, in SI units. A notebook shows the answer and its charts.

    Raises:
        InputError: a wrong scenario or axis, impossible points, a folder that holds another sweep.
        ResourceError: the folder is in use or cannot be written.
    """
    from moesim.scenario import RandomPoints, Sweep, parse_objective
    from moesim.sweeps.answers import axes_named
    from moesim.sweeps.space import space_of
    from moesim.sweeps.sweep_run import run_sweep
    from moesim.sweeps.workers import Workers, local_workers

    loaded = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
    draw = None if random is None else RandomPoints(points=random, seed=random_seed)
    block = loaded.sweep or Sweep()
    space = space_of(block, axes, together, draw)
    wanted = parse_objective(loaded.objective if objective is None else objective)
    groups = axes_named(space, block.per if per is None else per)

    def workers(points: int) -> AbstractContextManager[Workers]:
        if executor is None and min(jobs, points) > 1:
            return local_workers(min(jobs, points))
        return _given(executor, jobs)

    swept = run_sweep(
        loaded,
        space,
        workers,
        impossible=impossible or block.impossible,
        folder=None if out is None else Path(out),
    )

    def answer() -> "tuple[Answer, SweepData]":
        from moesim.sweeps.report import answered, command_for, snippet_for

        if isinstance(scenario, str | Path):
            command = command_for(loaded, str(scenario), ["variants={}"] if loaded.variants else [], space)
        else:
            command = snippet_for(
                loaded, space, "scenario.resolved()" if isinstance(scenario, Scenario) else "scenario"
            )
        return answered(loaded, space, wanted, swept.table, groups, command)

    if out is not None:
        from moesim.sweeps.report import write_report

        found, data = answer()
        write_report(Path(out), found, data, space, swept.table, figures)
    frame: Any = swept.table.to_pandas()
    columns = list(frame.columns)

    def shown() -> str:
        from moesim.report import sweep_in_notebook

        if list(frame.columns) == columns and len(frame) == len(space):
            return sweep_in_notebook(answer()[1])
        return str(type(frame)._repr_html_(frame))  # changed since: what it holds now

    # A notebook asks the value itself: the whole sweep answers its question, any part of it is a plain table.
    frame._repr_html_ = shown
    return cast("pd.DataFrame", frame)


@contextmanager
def _given(executor: Executor | None, jobs: int) -> "Iterator[Workers]":
    from moesim.sweeps.workers import Workers

    if executor is not None:
        yield Workers(executor, lambda: jobs)
        return
    with ThreadPoolExecutor(1) as here:
        yield Workers(here, lambda: 1)
