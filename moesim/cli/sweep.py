"""``moesim sweep``: one scenario at many values, and what they say about an objective."""

import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from moesim.cli.folder_wait import WAIT
from moesim.cli.memory_limit import HELP as MAX_MEM
from moesim.cli.memory_limit import limit_bytes
from moesim.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from moesim.scenario import Scenario
    from moesim.sweeps.workers import Workers

_TERMINATED = 128 + signal.SIGTERM


def sweep(
    scenario: str = typer.Argument(..., help="A scenario file, or the name of one that ships (sweep-m-by-k)."),
    axis: list[str] = typer.Option([], "-p", "--axis", help="KEY=VALUES: routing.top_k=2,4,8 or routing.top_k=1..8."),
    together: list[str] = typer.Option(
        [], "--zip", help="Keys that move together: 'model.n_experts=64,128; model.expert_hidden=2048,1024'."
    ),
    random: int | None = typer.Option(None, "--random", min=1, help="Draw this many of the combinations."),
    random_seed: int = typer.Option(0, "--random-seed", min=0, help="Seed of that draw."),
    override: list[str] = typer.Option([], "-o", "--override", help="key=value for every point, as in moesim run."),
    objective: str | None = typer.Option(
        None, "--objective", help="'layer_time_s where gate_mass_lost < 0.01 and rank_load_max_over_mean < 1.3'."
    ),
    per: list[str] = typer.Option([], "--per", help="KEY of an axis: also list the best point for each of its values."),
    impossible: str | None = typer.Option(
        None, "--impossible", help="Impossible points: refuse to run any (default), or skip them."
    ),
    jobs: int = typer.Option(0, "--jobs", min=0, help="Processes; 0 = one per core."),
    dask: str | None = typer.Option(None, "--dask", help="Run on a Dask cluster: tcp://HOST:PORT of its scheduler."),
    scheduler_file: Path | None = typer.Option(None, "--scheduler-file", help="The same, by its scheduler file."),
    out: Path | None = typer.Option(None, "--out", help="Folder; default results/NAME-sweep-DIGEST, always the same."),
    wait: bool = WAIT,
    retry_failed: bool = typer.Option(False, "--retry-failed", help="Run points again that failed before."),
    figures: bool = typer.Option(False, "--figures", help="Write every chart as SVG and PNG too."),
    max_mem: str | None = typer.Option(None, "--max-mem", help=MAX_MEM),
    as_json: bool = typer.Option(False, "--json", help="Print the answer as JSON."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Simulate a scenario at every combination of some values; after Ctrl-C or SIGTERM, the same command resumes.

    Example: moesim sweep quickstart -p routing.top_k=2,4,8 -p routing.top_groups=1..4 --impossible skip
    """
    from moesim.cli.memory_need import refuse_too_large
    from moesim.cli.sweep_show import print_lost, print_sweep
    from moesim.errors import InputError
    from moesim.scenario import RandomPoints, load_scenario, parse_objective
    from moesim.sweeps.answers import axes_named
    from moesim.sweeps.space import parse_axis_options, parse_together_option, space_of
    from moesim.sweeps.sweep_run import run_sweep

    loaded = load_scenario(scenario, overrides=override)
    block = loaded.sweep
    draw = None if random is None else RandomPoints(points=random, seed=random_seed)
    space = space_of(block, parse_axis_options(axis), [parse_together_option(text) for text in together], draw)
    try:
        wanted = parse_objective(objective or loaded.objective)
    except InputError as error:
        raise InputError(error.what, "--objective", error.fix) from None
    groups = axes_named(space, per or (block.per if block else ()))
    policy = impossible or (block.impossible if block else "refuse")
    if policy not in ("refuse", "skip"):
        raise InputError(f"{policy!r:.40} is not a policy", "--impossible", "use refuse or skip")
    if loaded.variants and not quiet:
        typer.echo("variants are left out: the points are made from the base scenario", err=True)
    folder = out or default_folder(loaded, space.described(), "sweep")
    elsewhere = dask is not None or scheduler_file is not None
    processes = 1 if elsewhere else min(jobs or os.cpu_count() or 1, len(space))
    limit_bytes(max_mem)  # a limit that is no size is not the points' fault
    with interruptible(folder), progress_bar(quiet) as watch:
        swept = run_sweep(
            loaded,
            space,
            lambda points: workers_for(points, jobs, dask, scheduler_file),
            impossible=cast(Any, policy),
            folder=folder,
            retry_failed=retry_failed,
            watch=watch,
            fits=lambda scenario: refuse_too_large(scenario, max_mem, processes),
        )
    # The page's libraries come with it.
    from moesim.sweeps.report import answered, as_plain, command_for, points_as_plain, write_report

    # A scenario with variants runs those: the point is the scenario without them.
    overrides = [*override, *(["variants={}"] if loaded.variants else [])]
    command = command_for(loaded, scenario, overrides, space)
    found, data = answered(loaded, space, wanted, swept.table, groups, command)
    write_report(folder, found, data, space, swept.table, figures)
    if as_json:
        plain = as_plain(found, data, space, swept.table) | {"out": str(folder)}
        plain["table"] = points_as_plain(data, space, swept.table)
        typer.echo(json.dumps(plain, indent=1, allow_nan=False))
    else:
        print_sweep(space, found, data, swept.table, folder)
    print_lost(swept.table, "failed")
    if swept.counts.get("failed"):
        raise typer.Exit(4)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: everything stops as at Ctrl-C."""


@contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """Say at an interrupt or SIGTERM how what runs in the folder is resumed."""
    try:
        with _terminable():
            yield
    except KeyboardInterrupt as stopped:
        typer.echo(f"finished points are kept; to resume: {_again(folder)}", err=True)
        if isinstance(stopped, _Terminated):
            typer.echo("moesim: terminated", err=True)
            raise typer.Exit(_TERMINATED) from None
        raise


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn the first SIGTERM into an interrupt; a second one ends the process at once, as usual."""
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def default_folder(scenario: "Scenario", of: Any, what: str) -> Path:
    """A folder that the same sweep, plan or search for faults finds again."""
    from moesim.scenario import ScenarioTemplate
    from moesim.sweeps.digests import digest

    name = scenario.name.replace("/", "-")
    # Not the files' content: a sweep whose files have changed is refused with a message, rather than started again
    # beside the old one.
    sha = digest(ScenarioTemplate.of(scenario).written(), of)
    return Path("results") / f"{name}-{what}-{sha[:8]}"


def _again(folder: Path) -> str:
    """The command that resumes the sweep, for a shell."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--retry-failed"]
    given = any(argument == "--out" or argument.startswith("--out=") for argument in arguments)
    return shlex.join(["moesim", *arguments, *([] if given else ["--out", str(folder)])])


def workers_for(
    points: int, jobs: int, dask: str | None, scheduler_file: Path | None
) -> "AbstractContextManager[Workers]":
    """Workers of a Dask cluster, or so many processes; 0: one per core."""
    from moesim.sweeps.workers import dask_workers, local_workers

    if dask is not None or scheduler_file is not None:
        return dask_workers(dask, scheduler_file)
    return local_workers(min(jobs or os.cpu_count() or 1, points))
