"""``moesim validate``: published measurements against simulated ones."""

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from moesim.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from moesim.validate.error_spread import Spread
    from moesim.validate.evaluate_rows import Outcome
    from moesim.validate.published_row import Row
    from moesim.validate.unseen import Unseen


def validate(
    file: Path | None = typer.Argument(None, help="With --steps: a table of steps instead of the published ones."),
    tables: list[str] = typer.Option([], "--table", "-t", help="Only these tables (names or prefixes)."),
    reference: Path | None = typer.Option(
        None, "--reference", help="Folder with the large published extracts, which do not ship."
    ),
    every_row: bool = typer.Option(False, "--every-row", help="Print every row, not only the spread of each table."),
    as_json: bool = typer.Option(False, "--json", help="Print the rows as JSON."),
    page: Path | None = typer.Option(None, "--page", help="Write a page with plots: an .html file."),
    jobs: int = typer.Option(os.cpu_count() or 1, "--jobs", "-j", min=1, help="Worker processes."),
    files: list[Path] = typer.Option(
        [], "--rows", help="Your measurements instead: a benchmark's log or a table of rows; several times for several."
    ),
    given: list[str] = typer.Option(
        [], "--given", help="With --rows: what a log cannot say, as name=value: gpu=h100, ranks=16, gpus_per_node=8."
    ),
    steps: bool = typer.Option(
        False, "--steps", help="Published inference steps instead: tokens per second, raw and after one fitted row."
    ),
    fail_over: str | None = typer.Option(
        None, "--fail-over", help="With --rows: exit 4 when a row is off by more than this, such as 30%."
    ),
) -> None:
    """Simulate every published measurement and print the errors, fitted rows and held-out ones apart.

    With --rows: is my cluster right? Each of your measurements beside what moesim expects of such a cluster, with the
    interval that four clusters in five lie in; per wire what was expected, what was measured, and the likely cause.

    Example: moesim validate --rows low_latency.log --given gpu=h100 --given gpus_per_node=8
    """
    if files:
        from moesim.cli.validate_rows import validate_rows

        validate_rows(files, given, as_json, fail_over)
        return
    if steps:
        from moesim.cli.validate_steps import validate_steps

        validate_steps(file, as_json, jobs)
        return
    from moesim.files import PAGE, check_replaceable, write_files
    from moesim.validate.clusters_left_out import read_left_out
    from moesim.validate.evaluate_rows import evaluate
    from moesim.validate.ledger import read_ledger
    from moesim.validate.published import uccl_rows
    from moesim.validate.unseen import unseen
    from moesim.validate.validation_page import page_of

    check_replaceable(page, PAGE)
    chosen, left_out = _rows(tables, reference)
    ledger = read_ledger()
    with progress_bar(quiet=as_json) as watch:
        outcomes = evaluate(chosen, ledger, jobs, progress=partial(watch, "rows"))
    elsewhere = unseen(chosen, ledger) if page is not None or not as_json else []
    if as_json:
        typer.echo(json.dumps([_as_dict(outcome) for outcome in outcomes], indent=1))
    else:
        if not tables:
            _show_left_out()
        _show(outcomes, every_row or bool(tables))
        _show_unseen(elsewhere)
        _show_bytes(chosen + ([] if tables else uccl_rows()))
        if left_out and not tables:
            typer.echo(f"\n{left_out:,} rows of the large extracts were not read; name their folder: --reference DIR")
    if page is not None:
        clusters = [] if tables else read_left_out()
        write_files(page.parent, {page.name: page_of(outcomes, elsewhere, left_out, clusters).encode("utf-8")})
        typer.echo(str(page), err=as_json)


def _rows(tables: list[str], reference: Path | None) -> "tuple[list[Row], int]":
    """The rows asked for, and how many the ledger has beyond those that can be read."""
    from moesim.errors import InputError
    from moesim.validate.extracts import extract_rows
    from moesim.validate.ledger import LEFT_OUT, read_ledger
    from moesim.validate.published import published_rows

    everything = published_rows() + (extract_rows(reference) if reference is not None else [])
    names = dict.fromkeys(row.table for row in everything)
    for table in tables:
        if not any(name.startswith(table) for name in names):
            raise InputError(f"unknown table {table!r}", where="--table", fix=f"tables: {', '.join(names)}")
    chosen = [row for row in everything if not tables or any(row.table.startswith(table) for table in tables)]
    of_tables = [entry for entry in read_ledger().values() if entry.role != LEFT_OUT]
    return chosen, len(of_tables) - len(everything)


def _as_dict(outcome: "Outcome") -> dict[str, object]:
    from moesim.validate.causes import reason

    row, entry = outcome.row, outcome.entry
    return {
        "table": row.table,
        "row": row.key,
        "source": row.source,
        "quantity": row.quantity,
        "published": row.published,
        "simulated": outcome.simulated,
        "error": outcome.error,
        "role": entry.role,
        "suspect": entry.suspect,
        "reason": reason(outcome),
    }


def _show(outcomes: "list[Outcome]", with_rows: bool) -> None:
    from moesim.cli.show import console, table
    from moesim.validate import statistics
    from moesim.validate.causes import cause_of, reason
    from moesim.validate.error_spread import Spread

    out = console()
    if with_rows:
        for name, found in statistics.by_table(outcomes).items():
            lines = [
                (
                    outcome.row.key,
                    outcome.row.quantity,
                    outcome.row.published,
                    outcome.simulated,
                    "-" if outcome.error is None else f"{100 * outcome.error:+.1f} %",
                    outcome.entry.role,
                    reason(outcome),
                )
                for outcome in found
            ]
            heads = ("row", "quantity", "published", "simulated", "error", "role", "reason")
            typer.echo(f"\n{name}: {found[0].row.source}")
            out.print(table("", heads, lines))
    columns = ("table", "fitted", "", "held out: large", "", "small", "", "worst", "suspect", "")
    spreads = [(name, *_spreads(found)) for name, found in statistics.by_table(outcomes).items()]
    typer.echo("\nAbsolute error in %: number of rows, then median / 90th percentile")
    out.print(table("", columns, spreads))
    for name, choose, bar in (
        ("held out", statistics.counts, statistics.POOLED_BAR),
        ("fitted", statistics.fitted, statistics.FIT_BAR),
    ):
        spread, mean = Spread.of(filter(choose, outcomes)), statistics.mean_over_tables(outcomes, choose)
        if spread is not None and mean is not None:
            typer.echo(
                f"{name}: {spread.rows:,} rows, median {100 * spread.median:.1f} %, 90th percentile "
                f"{100 * spread.p90:.1f} %; mean over tables {100 * mean[0]:.1f} / {100 * mean[1]:.1f} %; "
                f"bar {' / '.join(f'{100 * limit:.0f}' for limit in bar if limit < 1)} % "
                f"{'met' if spread.within(bar) else 'missed'}"
            )
    sums = [outcome.error for outcome in outcomes if outcome.row.library == "arithmetic"]
    if sums:
        worst = max(abs(error or 0.0) for error in sums)
        typer.echo(f"sums: {len(sums)} published figures that are arithmetic, at most {100 * worst:.1f} % off")
    skipped = sum(outcome.simulated is None for outcome in outcomes)
    if skipped:
        typer.echo(f"not simulated: {skipped} rows: {cause_of('balance')}")
    for name, which, spread in statistics.misses(outcomes):
        typer.echo(
            f"misses its bar: {name}, {which}, {100 * spread.median:.1f} / {100 * spread.p90:.1f} %: {cause_of(name)}"
        )


def _show_left_out() -> None:
    """What to expect on a cluster that nobody measured: each predicted by all others."""
    from moesim.cli.show import console, table
    from moesim.validate.clusters_left_out import read_left_out
    from moesim.validate.clusters_section import expected_table

    typer.echo("A cluster that nobody measured: every cluster predicted by all others, error of the time in %")
    found = expected_table(read_left_out())
    console().print(table("", found.columns, found.rows))


def _spreads(found: "list[Outcome]") -> tuple[object, ...]:
    """Cells of a table's line: rows and spread of its fitted, large, small and suspect rows, and the worst held out."""
    from moesim.validate import statistics
    from moesim.validate.error_spread import Spread

    fitted, large, small, suspect = statistics.groups(found).values()
    worst = Spread.of([*large, *small])
    return (
        *_cell(Spread.of(fitted)),
        *_cell(Spread.of(large)),
        *_cell(Spread.of(small)),
        "-" if worst is None else f"{100 * worst.worst:.1f}",
        *_cell(Spread.of(suspect)),
    )


def _cell(spread: "Spread | None") -> tuple[object, str]:
    if spread is None:
        return 0, "-"
    return spread.rows, f"{100 * spread.median:.1f} / {100 * spread.p90:.1f}"


def _show_unseen(elsewhere: "list[Unseen]") -> None:
    from moesim.validate.causes import cause_after_four
    from moesim.validate.error_spread import Spread
    from moesim.validate.statistics import POOLED_BAR

    for one in elsewhere:
        before, after = Spread.of_errors(one.before), Spread.of_errors(one.after)
        typer.echo(
            f"the error to expect on an unseen cluster: {one.what} with the constants {one.calibration}: "
            f"{before.rows} held-out rows, median {100 * before.median:.1f} %, from {100 * min(one.before):+.1f} to "
            f"{100 * max(one.before):+.1f} %; after calibrate on {len(one.measured)} of its rows "
            f"{100 * after.median:.1f} %, 90th percentile {100 * after.p90:.1f} %, bar "
            f"{'met' if after.within(POOLED_BAR) else f'missed: {cause_after_four(one.what)}'}"
        )


def _show_bytes(chosen: "list[Row]") -> None:
    from moesim.validate.byte_accounting import account

    accounted = list(account(chosen))
    if not accounted:
        return
    off = [one for one in accounted if not one.within]
    worst = max(abs(one.error) for one in accounted)
    typer.echo(
        f"bytes: {len(accounted) - len(off)} of {len(accounted)} rows that print time and bandwidth agree within 1 % "
        f"or their rounding; at most {100 * worst:.2f} % apart"
    )
    for one in off:
        typer.echo(f"  {one.row.table} {one.row.key}: {100 * one.error:+.2f} %")
