"""``moesim replay``: a run's traffic for nccl-tests, and what it measured beside what moesim predicts."""

from pathlib import Path
from typing import Literal

import typer

Phase = Literal["dispatch", "combine"]
Per = Literal["selection", "rank"]

_RUN = typer.Argument(..., help="Result folder.")
_PHASE = typer.Option("dispatch", "--phase", help="dispatch or combine.")
_LAYER = typer.Option(None, "--layer", help="Recorded layer (default: the run's first).")
_COPIES = typer.Option("selection", "--copies", help="A copy per selection, or per distinct rank.")


group = typer.Typer(name="replay", help="A run's traffic on a real cluster, with nccl-tests.", no_args_is_help=True)


@group.command("export")
def export(
    run: Path = _RUN,
    out: Path = typer.Option(Path("matrix.txt"), "--out", help="The matrix file to write."),
    phase: Phase = _PHASE,
    layer: int | None = _LAYER,
    copies: Per = _COPIES,
) -> None:
    """Write bytes from rank to rank as nccl-tests' alltoallv_perf reads them, and print its command line.

    Example: moesim replay export results/latest --out matrix.txt
    """
    from moesim import load_result
    from moesim.files import check_replaceable, write_files
    from moesim.results import made_of
    from moesim.validate.alltoallv_replay import as_text, busiest_bytes, traffic_matrix

    check_replaceable(out, "")
    with made_of(run):
        matrix = traffic_matrix(load_result(run), phase, layer, copies)
    write_files(out.parent, {out.name: as_text(matrix).encode()})
    most, ranks = busiest_bytes(matrix), len(matrix)
    typer.echo(f"# {out}: {ranks} ranks, {int(matrix.sum()):,} bytes; nccl-tests 2.19 or later, one GPU a process")
    typer.echo(
        f"NCCL_TESTS_ALLTOALLV_MATRIX_FILE={out} mpirun -np {ranks} "
        f"alltoallv_perf -g 1 -b {most} -e {most} -a 3 -J result.json"
    )


@group.command("import")
def compare(
    measured: Path = typer.Argument(..., help="JSON of alltoallv_perf -J."),
    run: Path = _RUN,
    phase: Phase = _PHASE,
    layer: int | None = _LAYER,
    copies: Per = _COPIES,
    matrix: Path | None = typer.Option(None, "--matrix", help="The matrix file, if it was edited after the export."),
    topology: str | None = typer.Option(
        None, "--topology", help="Topology, by name or path; needed if the run's was a file."
    ),
    calibration: str = typer.Option("auto", "--calibration", help="Constants of nccl-direct: auto, a set, or a file."),
) -> None:
    """Compare what alltoallv_perf measured with what moesim predicts for the same bytes.

    Example: moesim replay import result.json results/latest
    """
    from moesim import load_result
    from moesim.cli.show import console, table
    from moesim.results import made_of
    from moesim.traffic.constant_sets import find_set
    from moesim.validate.alltoallv_replay import (
        check_same,
        fabric_of,
        predicted_s,
        read_matrix,
        read_measurement,
        traffic_matrix,
    )

    with made_of(run):
        result = load_result(run)
        fabric = fabric_of(result, topology)
        bytes_sent = read_matrix(matrix, fabric.n_ranks) if matrix else traffic_matrix(result, phase, layer, copies)
    answer = read_measurement(measured)
    check_same(answer, bytes_sent, str(measured))
    seconds = predicted_s(fabric, bytes_sent, calibration)
    error = seconds / answer.time_s - 1
    gb_per_s = answer.busiest_bytes / 1e9
    rows = [
        ("measured", f"{answer.time_s * 1e6:.2f}", f"{gb_per_s / answer.time_s:.2f}"),
        ("predicted", f"{seconds * 1e6:.2f}", f"{gb_per_s / seconds:.2f}"),
    ]
    title = f"all-to-all of {run}: {phase}, {fabric.n_ranks} ranks; time in us, algbw in GB/s"
    console().print(table(title, ["", "time", "algbw"], rows))
    used = find_set("nccl-direct", fabric.gpu, calibration)
    typer.echo(f"predicted is {100 * error:+.1f} % of measured, with the constants {used.name} ({used.source})")
