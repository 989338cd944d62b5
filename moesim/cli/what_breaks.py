"""``moesim what-breaks``: every single fault of a cluster, ranked by what it costs the scenario."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from moesim.cli.folder_wait import WAIT
from moesim.cli.memory_limit import HELP as MAX_MEM
from moesim.cli.progress_bar import progress_bar
from moesim.cli.sweep import default_folder, interruptible, workers_for

if TYPE_CHECKING:
    from moesim.results import WhatBreaks

_MOST_ROWS = 8
SCHEMA_VERSION = "1"


def what_breaks(
    scenario: str = typer.Argument(..., help="A scenario file, or the name of one that ships."),
    override: list[str] = typer.Option([], "-o", "--override", help="key=value."),
    gpu_factor: float = typer.Option(1.5, "--gpu-factor", min=1.0, help="How many times slower a slow GPU is."),
    link_factor: float = typer.Option(2.0, "--link-factor", min=1.0, help="How many times slower a slow link is."),
    share: float | None = typer.Option(
        None,
        "--simulate",
        min=0.0,
        max=1.0,
        help="Least share of the faults to simulate, 0 to 1 (default: as many as "
        "two minutes of a core allow; else 5 %, or fewer where these take a quarter of an hour).",
    ),
    jobs: int = typer.Option(0, "--jobs", min=0, help="Processes; 0 = one per core."),
    dask: str | None = typer.Option(None, "--dask", help="Run on a Dask cluster: tcp://HOST:PORT of its scheduler."),
    scheduler_file: Path | None = typer.Option(None, "--scheduler-file", help="The same, by its scheduler file."),
    max_mem: str | None = typer.Option(None, "--max-mem", help=MAX_MEM),
    out: Path | None = typer.Option(None, "--out", help="Folder; default results/NAME-what-breaks-DIGEST."),
    wait: bool = WAIT,
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Rank every single fault: GPUs slow or dead, NICs, NVLinks and uplinks slow or dead, rails and switches dead.

    After Ctrl-C or SIGTERM, the same command resumes.

    Example: moesim what-breaks quickstart -o cluster.topology=h200-2x8-rail -o parallel.ep=16
    """
    from moesim.cli.memory_need import refuse_too_large
    from moesim.cluster import Heat, draw, find_topology, read_topology
    from moesim.files import PAGE, PART, PICTURE, check_replaceable, write_files
    from moesim.report import render_what_breaks
    from moesim.scenario import load_scenario
    from moesim.sweeps.single_faults import Severities
    from moesim.sweeps.what_breaks import what_breaks as search

    loaded = load_scenario(scenario, overrides=override)
    elsewhere = dask is not None or scheduler_file is not None
    refuse_too_large(loaded, max_mem, 1 if elsewhere else jobs or os.cpu_count() or 1)
    severities = Severities(gpu_factor, link_factor)
    folder = out or default_folder(loaded, severities, "what-breaks")
    for name, kind in {"report.html": PAGE, "what-breaks.json": PART, "map.svg": PICTURE}.items():
        check_replaceable(folder / name, kind)
    overrides = [*override, *(["variants={}"] if loaded.variants else [])]
    typed = [scenario, *(word for value in overrides for word in ("-o", value))]
    with interruptible(folder), progress_bar(quiet) as watch:
        found = search(
            loaded,
            lambda points: workers_for(points, jobs, dask, scheduler_file),
            typed=typed,
            folder=folder,
            severities=severities,
            share=share,
            watch=watch,
        )
    heat = Heat({name: 100 * value for name, value in found.heat().items()}, "longer by (%)", "nothing runs without it")
    topology = read_topology(find_topology(loaded.source(loaded.cluster.name)))
    picture = draw(topology, folder / "map.svg", title=loaded.cluster.name, heat=heat)
    plain = json.dumps({"schema": SCHEMA_VERSION} | found.to_json(), indent=1, allow_nan=False)
    page = render_what_breaks(found, picture.read_bytes())
    write_files(folder, {"what-breaks.json": (plain + "\n").encode(), "report.html": page.encode()})
    if as_json:
        typer.echo(plain)
    else:
        _print(found, folder)
    failed = [one for one in found.faults if one.how == "failed"]
    for one in failed:
        typer.echo(f"{one.what} at {one.place} failed: {one.error}", err=True)
    if failed:
        raise typer.Exit(4)


def _print(found: "WhatBreaks", folder: Path) -> None:
    from moesim.cli.show import console, table
    from moesim.report import faults_table, shown

    out = console()
    out.print(found.sentence(), soft_wrap=True)
    first_of = {one.what: i for i, one in reversed(list(enumerate(found.faults)))}
    rows = sorted({*range(min(_MOST_ROWS, len(found.faults))), *first_of.values()})
    faults = faults_table(found, [found.faults[i] for i in rows])
    title = "the worst faults, and the worst of each kind"
    out.print(table(title, faults.columns, [[shown(cell) for cell in row] for row in faults.rows]))
    if len(found.faults) > len(rows):
        out.print(f"and {len(found.faults) - len(rows):,} more rows in the report")
    for note in (*found.notes, found.severities):
        out.print(note, soft_wrap=True)
    out.print(f"report: {folder / 'report.html'}")
