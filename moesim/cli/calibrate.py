"""``moesim calibrate``: fit the constants of an all-to-all to measurements."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from moesim.validate.refit import Refit


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command("calibrate")(calibrate)


def calibrate(
    files: list[Path] = typer.Argument(None, help="Logs of nccl-tests or DeepEP's tests, or CSV files."),
    algorithm: str = typer.Option("", "--algorithm", "-a", help="All-to-all that was measured."),
    gpu: str = typer.Option("", "--gpu", "-g", help="GPU of the cluster, lower case: h100."),
    out: Path | None = typer.Option(None, "--out", help="File to write; a folder with --published."),
    start: str = typer.Option("auto", "--start", help="Set of constants to start from: a name or a file."),
    ranks: int = typer.Option(0, "--ranks", min=0, help="Ranks that were measured, where the file does not say."),
    gpus_per_node: int = typer.Option(0, "--gpus-per-node", min=0, help="GPUs of one NVLink domain, where not 8."),
    tokens: int = typer.Option(0, "--tokens", min=0, help="Tokens per rank, where the file does not say."),
    hidden: int = typer.Option(0, "--hidden", min=0, help="Channels of a token, where the file does not say."),
    top_k: int = typer.Option(0, "--top-k", min=0, help="Experts of a token, where the file does not say."),
    experts: int = typer.Option(0, "--experts", min=0, help="Experts of the layer, where the file does not say."),
    published: bool = typer.Option(False, "--published", help="Fit the shipped sets to the published rows."),
    tables: list[str] = typer.Option([], "--table", "-t", help="With --published: only the sets of these tables."),
    reference: Path | None = typer.Option(None, "--reference", help="Folder with the large published extracts."),
) -> None:
    """Fit all-to-all constants to measurements of your cluster, through the simulation, and write them as a file.

    Use it with -o alltoall.calibration=my.yaml. Read are nccl-tests' tables and JSON, DeepEP's test_internode,
    test_intranode, test_low_latency and test_ep, also inside a whole terminal log or issue. CSV columns: op (dispatch,
    combine, alltoall), ranks, tokens, time_us; optional nodes, dtype, sms, hidden, experts, top_k; tokens are bytes per
    rank for nccl-*.

    Four rows of a phase are usually enough: the smallest and the largest message on the fewest ranks, the smallest on
    a middle number of ranks, and on the most ranks one two thirds of the way from smallest to largest, in doublings.

    Example: moesim calibrate alltoall.json -a nccl-direct -g h100 --out my.yaml
    """
    from moesim.errors import InputError

    if published:
        if files or algorithm:
            raise InputError("--published takes no files of yours", fix="leave out the files and --algorithm")
        _published(tables, reference, out)
        return
    if not files:
        raise InputError("no measurements", fix="give a file, or --published")
    if not algorithm or not gpu:
        raise InputError("which algorithm, on which GPU?", fix="give --algorithm and --gpu")
    said = {
        "ranks": ranks,
        "gpus_per_node": gpus_per_node,
        "tokens": tokens,
        "hidden": hidden,
        "top_k": top_k,
        "experts": experts,
    }
    given: dict[str, str | float] = {"gpu_moesim": gpu} | {name: value for name, value in said.items() if value}
    _measured(files, algorithm, gpu, out, start, given)


def _measured(
    files: list[Path], algorithm: str, gpu: str, out: Path | None, start: str, given: dict[str, str | float]
) -> None:
    from moesim.errors import InputError
    from moesim.files import write_files
    from moesim.logs import rack_scale, read_log
    from moesim.mistakes import did_you_mean
    from moesim.traffic.constant_sets import find_set
    from moesim.validate.measured_rows import LIBRARIES, rows_to_fit
    from moesim.validate.refit import refit_measured
    from moesim.validate.set_file import spell_set

    if algorithm not in LIBRARIES:
        fix = did_you_mean(algorithm, list(LIBRARIES), "algorithms")
        raise InputError(f"measurements of {algorithm!r} are not read", where="--algorithm", fix=fix)
    begin = find_set(algorithm, gpu, start)
    rows = []
    for path in files:
        log = read_log(path, given, None if rack_scale(gpu) else 8)
        used = rows_to_fit(log, algorithm, gpu, str(path))
        rows += used
        for note in (f"{log.form}, {len(used)} of {len(log.rows)} rows are fitted", *log.notes):
            typer.echo(f"{path}: {note}", err=True)
    found = refit_measured(rows, begin, gpu, files)
    _show(found, f"{algorithm} on {gpu}, from {begin.name}")
    _show_moved(found)
    if out is not None:
        text = spell_set(found.constants)
        write_files(out.parent, {out.name: text.encode("utf-8")})
        typer.echo(f"{out}: use it with -o alltoall.calibration={out}")


def _published(tables: list[str], reference: Path | None, out: Path | None) -> None:
    from moesim.files import write_files
    from moesim.validate.benches import bench_of, is_transfer
    from moesim.validate.extracts import extract_rows
    from moesim.validate.ledger import read_ledger
    from moesim.validate.published import published_rows
    from moesim.validate.refit import refit_published
    from moesim.validate.set_file import spell_set

    rows = published_rows() + (extract_rows(reference) if reference is not None else [])
    of_tables = [row for row in rows if not tables or any(row.table.startswith(table) for table in tables)]
    sets = {bench_of(row).calibration for row in of_tables if is_transfer(row)}
    for found in refit_published(rows, read_ledger(), lambda name: name in sets):
        _show(found, found.constants.name)
        if out is not None:
            text = spell_set(found.constants)
            write_files(out, {f"{found.constants.name}.yaml": text.encode("utf-8")})


def _show(found: "Refit", what: str) -> None:
    from moesim.cli.show import console, table

    lines = [
        (row.key, row.quantity, row.published, f"{100 * error:+.1f} %")
        for row, error in zip(found.rows, found.fitted.errors, strict=True)
    ]
    typer.echo(
        f"\n{what}: {len(lines)} row{'s' * (len(lines) > 1)}, error left in time: median "
        f"{100 * found.fitted.median:.1f} %, "
        f"90th percentile {100 * found.fitted.p90:.1f} %"
    )
    console().print(table("", ("row", "quantity", "measured", "error"), lines))


def _show_moved(found: "Refit") -> None:
    """Print what the user's rows changed, and what they leave open."""
    from moesim.cli.show import console, table

    lines = [(one.constant, one.of, one.before, one.after) for one in found.moved]
    typer.echo("\nconstants that moved; the others are as they were" if lines else "\nno constant moved")
    if lines:
        console().print(table("", ("constant", "of", "before", "now"), lines))
    for line in found.left_open:
        typer.echo(f"open: {line}")
