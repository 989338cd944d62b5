"""``moesim plan``: the best deployment of a scenario's model and load on its cluster, within limits."""

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from moesim.cli.folder_wait import WAIT
from moesim.cli.memory_limit import HELP as MAX_MEM
from moesim.cli.memory_limit import limit_bytes
from moesim.cli.progress_bar import progress_bar
from moesim.cli.sweep import default_folder, interruptible, workers_for

if TYPE_CHECKING:
    from moesim.sweeps.plan_answer import PlanAnswer
    from moesim.sweeps.space import Space

_MOST_ROWS = 20


def plan(
    scenario: str = typer.Argument(..., help="A scenario file of whole steps, or the name of one that ships."),
    limit: list[str] = typer.Option([], "--limit", help="'tpot_s < 50ms', 'memory_free_bytes > 4GB'; repeatable."),
    gpus: int | None = typer.Option(None, "--gpus", min=1, help="GPUs to use, in equal EP groups; default all."),
    axis: list[str] = typer.Option([], "-p", "--axis", help="KEY=VALUES instead of those that a plan tries itself."),
    override: list[str] = typer.Option([], "-o", "--override", help="key=value for every point, as in moesim run."),
    every: bool = typer.Option(False, "--every-point", help="Simulate every point, not only the promising."),
    jobs: int = typer.Option(0, "--jobs", min=0, help="Processes; 0 = one per core."),
    dask: str | None = typer.Option(None, "--dask", help="Run on a Dask cluster: tcp://HOST:PORT of its scheduler."),
    scheduler_file: Path | None = typer.Option(None, "--scheduler-file", help="The same, by its scheduler file."),
    out: Path | None = typer.Option(None, "--out", help="Folder; default results/NAME-plan-DIGEST, always the same."),
    wait: bool = WAIT,
    as_json: bool = typer.Option(False, "--json", help="Print the answer as JSON."),
    max_mem: str | None = typer.Option(None, "--max-mem", help=MAX_MEM),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Find the deployment of most tokens per second and GPU within limits: EP, all-to-all, overlap, placement, batch.

    Example: moesim plan deepseek-v3-decode-step -o cluster.topology=h200-4x8-rail --limit "tpot_s < 50ms"
    """
    from moesim.cli.memory_need import refuse_too_large
    from moesim.errors import InputError
    from moesim.scenario import load_scenario, parse_threshold
    from moesim.sweeps.deployments import deployments
    from moesim.sweeps.pruned_search import search
    from moesim.sweeps.space import parse_axis_options

    loaded = load_scenario(scenario, overrides=override)
    if loaded.placement.learn_from is None and loaded.placement.file is None:  # judged on what it has not learnt from
        override = [*override, "placement.learn_from=first_half"]
        loaded = load_scenario(scenario, overrides=override)
    try:
        limits = tuple(map(parse_threshold, limit))
    except InputError as error:
        raise InputError(error.what, "--limit", error.fix) from None
    given = parse_axis_options(axis)
    space = deployments(loaded, gpus, given)
    folder = out or default_folder(loaded, space.described(), "plan")
    limit_bytes(max_mem)
    processes = 1 if dask or scheduler_file else min(jobs or os.cpu_count() or 1, len(space))
    with interruptible(folder), progress_bar(quiet) as watch:
        crew = partial(workers_for, jobs=jobs, dask=dask, scheduler_file=scheduler_file)
        fits = partial(refuse_too_large, max_mem=max_mem, processes=processes)
        found, swept = search(loaded, space, limits, crew, every=every, folder=folder, watch=watch, fits=fits)
    from moesim.files import write_files
    from moesim.report import render_sweep
    from moesim.sweeps.plan_answer import plan_answer
    from moesim.sweeps.report import ANSWER_FILE, command_for

    overrides = [*override, *(["variants={}"] if loaded.variants else [])]
    made = plan_answer(loaded, space, limits, found, swept.table, command_for(loaded, scenario, overrides, space))
    plain = made.to_json(space, swept.table)
    files = {"report.html": render_sweep(made.data), ANSWER_FILE: json.dumps(plain, indent=1, allow_nan=False) + "\n"}
    write_files(folder, {name: text.encode() for name, text in files.items()})
    if as_json:
        typer.echo(json.dumps(plain | {"out": str(folder)}, indent=1, allow_nan=False))
    else:
        _print(made, space, folder)
    if made.answer.best is None or swept.counts.get("failed"):
        raise typer.Exit(4)


def _print(made: "PlanAnswer", space: "Space", folder: Path) -> None:
    from moesim.cli.show import console, table
    from moesim.sweeps.deployments import RATE
    from moesim.sweeps.plan_answer import deployment
    from moesim.units import format_bytes, format_duration

    out = console()
    for sentence, style in zip(made.data.said or (), ("bold", ""), strict=True):
        out.print(sentence, style=style, soft_wrap=True)
    rows = []
    for point in dict.fromkeys([*made.answer.front[:_MOST_ROWS], *([] if made.second is None else [made.second])]):
        summary = made.found.simulated[point]
        mark = "*" if point == made.answer.best else "=" if point in made.equal else " "
        free = summary["memory_free_bytes"]
        rows.append((
            f"{mark} {point}", deployment(space.values(point)), f"{summary[RATE]:,.0f}",
            format_duration(summary[made.found.latency]), "-" if free is None else format_bytes(free),
            summary["bottleneck"],
        ))  # fmt: skip
    if rows:
        title = "the front and the best of another kind; * best, = as good within the model's error"
        columns = ("point", "deployment", "tokens/s/GPU", made.found.latency, "free", "bottleneck")
        out.print(table(title, columns, rows))
    out.print(f"{len(space):,} points: {made.data.counted()}")
    out.print(f"report: {folder / 'report.html'}")
