"""``python -m refit``: the shipped constants of the all-to-alls and of the kernels, fitted again and checked."""

import io
import json
import sys
from dataclasses import asdict
from pathlib import Path

import typer
from ruamel.yaml import YAML

from moesim.errors import MoesimError
from moesim.files import marked, write_files
from moesim.validate.benches import bench_of, is_transfer
from moesim.validate.clusters_left_out import LEFT_OUT
from moesim.validate.extracts import extract_rows
from moesim.validate.ledger import read_ledger
from moesim.validate.published import published_rows
from moesim.validate.published_row import Row
from moesim.validate.set_file import spell_set
from refit.kernel_check import check
from refit.kernel_fit import fit
from refit.population_fit import cluster_rows, fit_over_clusters, spell_left_out
from refit.shipped_sets import refit_published

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_EXTRACTS = typer.Option(None, help="Folder with the large published extracts.")
_ROWS = typer.Option(..., help="Folder of measured rows: it holds kernels/*.csv.")


@app.command()
def sets(
    out: Path | None = typer.Option(None, help="Folder to write the sets into."),
    table: list[str] = typer.Option([], help="Only the sets of this table (a name or a prefix); repeatable."),
    reference: Path | None = _EXTRACTS,
) -> None:
    """Fit the sets of one source each to the rows of the ledger."""
    of_tables = [row for row in _rows(reference) if not table or row.table.startswith(tuple(table))]
    wanted = {bench_of(row).calibration for row in of_tables if is_transfer(row)}
    for found in refit_published(_rows(reference), read_ledger(), lambda name: name in wanted):
        name, off = found.constants.name, found.fitted.off
        typer.echo(f"{name}: {len(found.rows)} rows, median {off.median:.1%}, 90th percentile {off.p90:.1%}")
        for row, error in zip(found.rows, found.fitted.errors, strict=True):
            typer.echo(f"  {row.key} {row.quantity} {row.published}: {error:+.1%}")
        if out is not None:
            write_files(out, {f"{name}.yaml": marked("calibration", spell_set(found.constants).encode())})


@app.command()
def clusters(
    out: Path | None = typer.Option(None, help="Folder to write the sets and the rows left out into."),
    reference: Path | None = _EXTRACTS,
) -> None:
    """Fit the sets over clusters, each cluster predicted from the others; the extracts are needed for what ships."""
    ledger = read_ledger()
    fair = [row for row in _rows(reference) if not ledger[row.name].suspect and row.measure != "torch"]
    made, left_out = fit_over_clusters(fair + cluster_rows(), lambda text: typer.echo(text, err=True))
    for found in made:
        typer.echo(f"{found.name}: {len(found.clusters)} clusters, one left out is off by {found.held_out}")
    if out is not None:
        files = {f"{found.name}.yaml": marked("calibration", spell_set(found).encode()) for found in made}
        write_files(out, files | {LEFT_OUT.name: spell_left_out(left_out).encode()})


@app.command()
def kernels(
    reference: Path = _ROWS,
    family: list[str] = typer.Option([], help="Fit only this family; repeatable."),
    out: Path | None = typer.Option(None, help="YAML file to write; default: print it."),
) -> None:
    """Fit the kernel models."""
    text = io.StringIO()
    YAML().dump(fit(reference, family or None), text)
    if out is None:
        typer.echo(text.getvalue(), nl=False)
    else:
        write_files(out.parent, {out.name: marked("kernel model", text.getvalue().encode())})


@app.command("check")
def check_kernels(reference: Path = _ROWS) -> None:
    """Print how far the kernel models that ship are off on measured rows, a line of JSON for each family and GPU."""
    for row in check(reference):
        typer.echo(json.dumps(asdict(row)))


def _rows(reference: Path | None) -> list[Row]:
    return published_rows() + (extract_rows(reference) if reference is not None else [])


if __name__ == "__main__":
    try:
        app(standalone_mode=False)
    except MoesimError as error:
        sys.exit(str(error))
