"""``moesim compare``: two runs, or two sweeps, number by number, and whether what differs is more than noise."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from moesim.cli.run import folder_labels

if TYPE_CHECKING:
    from moesim.report.comparison import Bands
    from moesim.results import Result
    from moesim.scenario import Scenario

_REGRESSED = 4
# The same scenario gives the same numbers; another machine's libraries may round them otherwise.
_AS_BEFORE = 1e-6
_SEED_LIMIT = 2**63


def compare(
    a: Path = typer.Argument(..., help="Folder of a run, or of a sweep, to compare against."),
    b: Path = typer.Argument(..., help="Folder to judge."),
    seeds: int = typer.Option(
        0, "--seeds", min=0, max=1000, help="Run both scenarios again with this many other seeds, to measure the noise."
    ),
    jobs: int = typer.Option(0, "--jobs", min=0, help="Processes for these; 0 = one per core."),
    fail_over: str | None = typer.Option(
        None, "--fail-over", help="Exit 4 when anything is worse by more, and outside the noise: 5%."
    ),
    out: Path | None = typer.Option(None, "--out", help="Write the page that compares the two runs."),
    as_json: bool = typer.Option(False, "--json", help="Print the rows as JSON."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Print how B differs from A, number by number; of two sweeps, point by point.

    Example: moesim compare results/before results/after --seeds 5 --fail-over 5%
    """
    from moesim.errors import InputError
    from moesim.sweeps.journal import JOURNAL_FILE

    limit = None if fail_over is None else percentage(fail_over)
    sweeps = [folder for folder in (a, b) if (folder / JOURNAL_FILE).is_file()]
    if len(sweeps) == 1:
        raise InputError(f"{sweeps[0]} is a sweep and the other is not", fix="compare two runs or two sweeps")
    if sweeps and seeds:
        raise InputError("--seeds is for two runs", fix="give the sweeps a seed axis: -p seed=0..4")
    if sweeps and out is not None:
        raise InputError("--out is for two runs", fix="each sweep has its own report.html")
    if sweeps:
        _compare_sweeps(a, b, limit, as_json)
        return
    say: Callable[[str], None] = (lambda _: None) if quiet else (lambda line: typer.echo(line, err=True))
    _compare_runs(a, b, seeds, jobs or os.cpu_count() or 1, say, limit, out, as_json)


def percentage(text: str) -> float:
    """Read a limit such as ``5%``, in per cent; 0 or more."""
    from moesim.bounded_text import number
    from moesim.errors import InputError

    try:
        limit = number(text.removesuffix("%"))
    except ValueError:
        limit = -1.0
    if limit < 0:
        raise InputError(f"{text!r} is not a percentage", where="--fail-over", fix="give one such as 5%")
    return limit


def _compare_runs(
    a: Path,
    b: Path,
    seeds: int,
    jobs: int,
    say: Callable[[str], None],
    limit: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from moesim.cli.compare_show import print_comparison
    from moesim.files import PAGE, check_replaceable, write_files
    from moesim.report import compare as compare_results
    from moesim.report import render_comparison
    from moesim.results import load_result, made_of

    check_replaceable(out, PAGE)
    labels = _labels(a, b)
    results = load_result(a, at_once=False), load_result(b, at_once=False)
    bands = _noise((a, b), results, seeds, jobs, say) if seeds else None
    with made_of(a, b):
        comparison = compare_results(*results, labels, bands)
        print_comparison(comparison, as_json)
    if out is not None:
        with made_of(a, b):
            page = render_comparison(list(zip(labels, results, strict=True)), " and ".join(labels), labels[0], bands)
        write_files(out.parent, {out.name: page.encode()})
        typer.echo(f"report: {out}", err=as_json)
    worst = None if limit is None else comparison.worst_regression(limit)
    if worst is not None:
        beyond = f" and outside the noise of {seeds + 1} seeds" if seeds else ""
        typer.echo(
            f"{worst.key} is worse by {worst.regression_percent():.1f} %, more than {limit:g} %{beyond}", err=True
        )
        raise typer.Exit(_REGRESSED)


def _compare_sweeps(a: Path, b: Path, limit: float | None, as_json: bool) -> None:
    from moesim.cli.compare_show import print_sweep_comparison, values_in_words
    from moesim.report.compare_sweeps import SweepTable, compare_sweeps
    from moesim.sweeps.points_table import read_table

    first, second = (SweepTable(str(folder), *read_table(folder)) for folder in (a, b))
    comparison = compare_sweeps(first, second, _labels(a, b))
    print_sweep_comparison(comparison, as_json)
    if limit is None:
        return
    if comparison.lost:
        typer.echo(f"{len(comparison.lost)} points of {first.name} failed in {second.name}", err=True)
        raise typer.Exit(_REGRESSED)
    worst = comparison.worst_regression(limit)
    if worst is not None:
        point, row = worst
        what = f"{row.key} is worse by {row.regression_percent():.1f} %, more than {limit:g} %"
        beyond = " and outside the noise of the seeds" if row.a_band is not None else ""
        typer.echo(f"{what}{beyond}, at {values_in_words(point.values)}", err=True)
        raise typer.Exit(_REGRESSED)


def _labels(a: Path, b: Path) -> tuple[str, str]:
    """Two different names."""
    first, second = folder_labels([a, b])
    return (first, second) if first != second else (f"{first} (A)", f"{second} (B)")


def _noise(
    folders: tuple[Path, Path], results: "tuple[Result, Result]", seeds: int, jobs: int, say: Callable[[str], None]
) -> "tuple[Bands, Bands]":
    """Run both scenarios again, each with its own seed and so many others.

    Raises:
        InputError: a folder's scenario cannot be run again, or does not give the folder's numbers any more: its noise
            would then not be that of the numbers compared.
    """
    from moesim.cli.variants import summarise_all
    from moesim.report.comparison import bands_over

    scenarios: dict[str, Scenario] = {}
    for side, folder in zip("AB", folders, strict=True):
        scenarios |= _reseeded(side, folder, seeds)
    summaries = summarise_all(scenarios, jobs, say)
    sides = []
    for side, folder, result in zip("AB", folders, results, strict=True):
        ours = [summary for name, summary in summaries.items() if name.startswith(side)]
        _refuse_another(folder, result, ours[0])
        sides.append(bands_over(ours))
    return sides[0], sides[1]


def _reseeded(side: str, folder: Path, seeds: int) -> "dict[str, Scenario]":
    """Return a folder's scenario with its own seed, then with the next ones."""
    from moesim.scenario import load_scenario

    path = folder / "scenario.resolved.yaml"
    own = load_scenario(path)
    found = [(own.seed + i) % _SEED_LIMIT for i in range(seeds + 1)]
    return {f"{side}, seed {seed}": load_scenario(path, [f"seed={seed}"]) for seed in found}


def _refuse_another(folder: Path, result: "Result", again: "dict[str, object]") -> None:
    from moesim.errors import InputError

    for key, now in again.items():
        before = result.summary.get(key)
        if isinstance(now, float) and isinstance(before, float):
            if math.isclose(now, before, rel_tol=_AS_BEFORE):
                continue
        elif now == before:
            continue
        raise InputError(
            f"its scenario no longer gives its numbers ({key}: {before} in the folder, {now} now)",
            where=str(folder),
            fix="run the scenario again, or compare without --seeds",
        )
