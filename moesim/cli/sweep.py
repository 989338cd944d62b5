"""``moesim sweep``: one scenario at many values, and what they say about an objective."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

if TYPE_CHECKING:
    import pyarrow as pa

    from moesim.scenario import Scenario
    from moesim.sweeps.answers import Answer
    from moesim.sweeps.run import Swept, Watch
    from moesim.sweeps.space import Space
    from moesim.sweeps.workers import Workers

_MOST_ROWS = 20
_MOST_FAILED = 10


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command("sweep")(sweep)


def sweep(
    scenario: str = typer.Argument(..., help="A scenario file, or the name of one that ships (sweep-m-by-k)."),
    axis: list[str] = typer.Option([], "-p", "--axis", help="KEY=VALUES: routing.top_k=2,4,8 or routing.top_k=1..8."),
    together: list[str] = typer.Option(
        [], "--zip", help="Keys that move together: 'model.n_experts=64,128; model.expert_hidden=2048,1024'."
    ),
    random: int | None = typer.Option(None, "--random", min=1, help="Draw so many of the combinations."),
    random_seed: int = typer.Option(0, "--random-seed", min=0, help="Seed of that draw."),
    override: list[str] = typer.Option([], "-o", "--override", help="key=value for every point, as in moesim run."),
    objective: str | None = typer.Option(
        None, "--objective", help="'layer_time_s where gate_mass_lost < 0.01 and rank_load_max_over_mean < 1.3'."
    ),
    impossible: str | None = typer.Option(
        None, "--impossible", help="Points that cannot be: refuse to run any (default), or skip them."
    ),
    jobs: int = typer.Option(0, "--jobs", min=0, help="Processes; 0 = one per core."),
    dask: str | None = typer.Option(None, "--dask", help="Run on a Dask cluster: tcp://HOST:PORT of its scheduler."),
    scheduler_file: Path | None = typer.Option(None, "--scheduler-file", help="The same, by its scheduler file."),
    out: Path | None = typer.Option(None, "--out", help="Folder; default results/NAME-sweep-DIGEST, always the same."),
    retry_failed: bool = typer.Option(False, "--retry-failed", help="Run points again that failed before."),
    as_json: bool = typer.Option(False, "--json", help="Print the answer as JSON."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Simulate a scenario at every combination of some values; interrupted, the same command goes on.

    Example: moesim sweep quickstart -p routing.top_k=2,4,8 -p routing.top_groups=1..4 --impossible skip
    """
    from moesim.cli.sweep_report import sweep_page
    from moesim.errors import InputError
    from moesim.files import write_files
    from moesim.scenario import load_scenario, parse_objective
    from moesim.scenario.sections import RandomPoints
    from moesim.sweeps.answers import answer
    from moesim.sweeps.run import run_sweep
    from moesim.sweeps.space import parse_axis_option, parse_together_option, space_of

    loaded = load_scenario(scenario, overrides=override)
    block = loaded.sweep
    draw = None if random is None else RandomPoints(points=random, seed=random_seed)
    space = space_of(
        block, dict(map(parse_axis_option, axis)), [parse_together_option(text) for text in together], draw
    )
    try:
        wanted = parse_objective(objective or (block.objective if block else "layer_time_s"))
    except InputError as error:
        raise InputError(error.what, "--objective", error.fix) from None
    policy = impossible or (block.impossible if block else "refuse")
    if policy not in ("refuse", "skip"):
        raise InputError(f"{policy!r:.40} is neither refuse nor skip", "--impossible")
    if dask is not None and scheduler_file is not None:
        raise InputError("--dask and --scheduler-file both say where the workers are", fix="give one of them")
    if loaded.variants and not quiet:
        typer.echo("variants are left out: the points are made from the base scenario", err=True)
    folder = out or _default_folder(loaded, space)
    try:
        with _progress(quiet) as watch:
            swept = run_sweep(
                loaded,
                space,
                lambda points: _workers(points, jobs, dask, scheduler_file),
                impossible=cast(Any, policy),
                folder=folder,
                retry_failed=retry_failed,
                watch=watch,
            )
    except KeyboardInterrupt:
        typer.echo(f"finished points are kept; to go on: {_again(folder)}", err=True)
        raise
    found = answer(space, wanted, swept.table)
    # A scenario with variants runs those: the point is the scenario without them.
    overrides = [*override, *(["variants={}"] if loaded.variants else [])]
    page = sweep_page(loaded, scenario, overrides, space, found, swept.table)
    write_files(folder, {"report.html": page.encode()})
    _show(loaded, space, found, swept, folder, as_json)
    if swept.counts.get("failed"):
        raise typer.Exit(4)


def _default_folder(scenario: "Scenario", space: "Space") -> Path:
    """A folder that the same sweep finds again."""
    from moesim.scenario import ScenarioTemplate
    from moesim.sweeps.digests import digest

    name = scenario.name.replace("/", "-")
    # Not the files' content: a sweep whose files have changed is told so, rather than begun anew beside the old one.
    return Path("results") / f"{name}-sweep-{digest(ScenarioTemplate.of(scenario).written(), space.described())[:8]}"


def _again(folder: Path) -> str:
    """The command that goes on, for a shell."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--retry-failed"]
    given = any(argument == "--out" or argument.startswith("--out=") for argument in arguments)
    return shlex.join(["moesim", *arguments, *([] if given else ["--out", str(folder)])])


def _workers(
    points: int, jobs: int, dask: str | None, scheduler_file: Path | None
) -> "AbstractContextManager[Workers]":
    from moesim.sweeps.workers import dask_workers, local_workers

    if dask is not None or scheduler_file is not None:
        return dask_workers(dask, scheduler_file)
    return local_workers(min(jobs or os.cpu_count() or 1, points))


@contextmanager
def _progress(quiet: bool) -> "Iterator[Watch]":
    """A bar with rate and time left on stderr, where stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", rate="")

        def watch(what: str, done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.3g}/s" if speed else ""
            bar.update(task, description=what, completed=done, total=total, rate=rate)

        yield watch


def _show(
    scenario: "Scenario",
    space: "Space",
    found: "Answer",
    swept: "Swept",
    folder: Path,
    as_json: bool,
) -> None:
    if as_json:
        typer.echo(json.dumps(_as_json(scenario, space, found, swept, folder), indent=1, allow_nan=False))
        return
    from moesim.cli.show import console

    out, counts = console(), swept.counts
    said = ", ".join(f"{counts[status]:,} {status}" for status in ("ok", "failed", "impossible") if status in counts)
    out.print(f"{scenario.name}: {len(space):,} points: {said}")
    _print_answer(space, found, swept.table)
    _print_lost(swept.table, "failed")
    out.print(f"points: {folder / 'points.parquet'}")
    out.print(f"report: {folder / 'report.html'}")


def _print_answer(space: "Space", found: "Answer", points: "pa.Table") -> None:
    from moesim.cli.show import console, table, with_unit
    from moesim.sweeps.answers import TRADED
    from moesim.sweeps.space import axis_label

    out, objective = console(), found.objective
    if found.best is None:
        out.print(f"no point keeps the limits of: {objective.text}")
        return
    names = list(dict.fromkeys((objective.key, *TRADED, *(limit.key for limit in objective.limits))))
    rows = _rows(points, [*names, "bottleneck"])

    def line(point: int) -> list[Any]:
        values = space.values(point)
        return [
            f"{'*' if point == found.best else ' '} {point}",
            *(axis_label(values[key]) for key in space.keys),
            *(with_unit(name, rows[point][name]) for name in names),
        ]

    out.print(f"best (*) for {objective.text}, and the points that no other beats in all of these", soft_wrap=True)
    front = [point for point in found.front if point != found.best]
    shown = [found.best, *front[: _MOST_ROWS - 1]]
    out.print(table("", ("point", *space.keys, *names), map(line, shown)))
    out.print(f"bottleneck at the best point: {rows[found.best]['bottleneck']}", soft_wrap=True)
    if len(front) >= _MOST_ROWS:
        out.print(f"and {len(front) - _MOST_ROWS + 1} more on the front")
    effects = [
        (
            effect.axis,
            *(" + ".join(map(axis_label, value)) for value in (effect.best, effect.least, effect.most)),
            _percent(effect.at_best),
            _percent(effect.marginal),
        )
        for effect in found.effects
    ]
    out.print(
        f"effect of each axis on {objective.key}, the others at the best point; and on its medians", soft_wrap=True
    )
    out.print(table("", ("axis", "best point", "least", "most", "least to most", "medians"), effects))


def _print_lost(points: "pa.Table", status: str) -> None:
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


def _rows(points: "pa.Table", names: list[str]) -> dict[int, dict[str, Any]]:
    columns = {name: points[name].to_pylist() for name in names}
    return {point: {name: columns[name][i] for name in names} for i, point in enumerate(points["point"].to_pylist())}


def _as_json(scenario: "Scenario", space: "Space", found: "Answer", swept: "Swept", folder: Path) -> dict[str, Any]:
    from moesim.sweeps.answers import TRADED

    names = list(dict.fromkeys((found.objective.key, *TRADED, *(limit.key for limit in found.objective.limits))))
    rows = _rows(swept.table, names)

    def told(point: int) -> dict[str, Any]:
        return {"point": point, "values": space.values(point), "summary": rows[point]}

    return {
        "name": scenario.name,
        "out": str(folder),
        "points": len(space),
        "counts": swept.counts,
        "objective": found.objective.text,
        "points_within_limits": found.meeting,
        "best": None if found.best is None else told(found.best),
        "front": [told(point) for point in found.front],
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
