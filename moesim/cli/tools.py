"""``moesim bw`` and ``record``: the parts of a simulation by themselves."""

import json
from pathlib import Path

import typer


def bw(
    topology: str = typer.Argument(..., help="Name or path of a topology."),
    begin: str = typer.Option("1MiB", "-b", help="Smallest message, bytes per rank."),
    end: str = typer.Option("1GiB", "-e", help="Largest message, bytes per rank."),
    factor: int = typer.Option(2, "-f", min=2, help="Factor from one size to the next."),
    algorithm: str = typer.Option("nccl-direct", "-a", "--algorithm", help="nccl-* or deepep-low-latency."),
    ranks: int | None = typer.Option(None, "-g", "--ranks", help="Use only this many GPUs, the first ones."),
    json_to: Path | None = typer.Option(None, "-J", "--json", help="Write the rows as JSON to this file."),
) -> None:
    """Simulate a uniform all-to-all over message sizes and print it as nccl-tests does.

    Example: moesim bw h800-8x8-rail -b 1MiB -e 256MiB
    """
    from moesim.alltoall_library import algorithm_named
    from moesim.cli.show import console, table
    from moesim.cluster import load_topology
    from moesim.errors import InputError
    from moesim.files import check_replaceable, marked, write_files
    from moesim.measure.notes import rates_from
    from moesim.timeline.uniform_alltoall import alltoall_table
    from moesim.traffic import calibration
    from moesim.units import parse_bytes

    if algorithm_named(algorithm).copies != "selection":
        raise InputError(
            f"{algorithm} routes tokens, it has no plain all-to-all",
            where="--algorithm",
            fix="use nccl-direct, nccl-pxn or deepep-low-latency",
        )
    check_replaceable(json_to, "bandwidth table")
    fabric = load_topology(topology)
    fabric = fabric if ranks is None else fabric.first_ranks(ranks)
    smallest, largest = int(parse_bytes(begin)), int(parse_bytes(end))
    if not fabric.n_ranks <= smallest <= largest:
        raise InputError(
            f"sizes from {smallest} to {largest} bytes",
            where="-b, -e",
            fix=f"give at least one byte for each of {fabric.n_ranks} ranks, and -e not below -b",
        )
    sizes = [smallest]
    while sizes[-1] * factor <= largest:
        sizes.append(sizes[-1] * factor)
    rows = alltoall_table(fabric, algorithm, sizes)
    gb = 1e9
    shown = [
        (
            row.size,
            f"{row.time_s * 1e6:.2f}",
            f"{row.algbw / gb:.2f}",
            f"{row.busbw / gb:.2f}",
            "-" if row.nic is None else f"{row.nic / gb:.2f}",
            "-" if row.nvlink is None else f"{row.nvlink / gb:.2f}",
        )
        for row in rows
    ]
    title = f"{fabric.name}, {fabric.n_ranks} ranks, {algorithm}, uniform all-to-all, simulated\n"
    title += "size in bytes per rank, time in us, bandwidths in GB/s: nccl-tests' and on the busiest wire"
    columns = ("size", "time", "algbw", "busbw", "NIC wire", "NVLink wire")
    typer.echo(title)
    console().print(table("", columns, shown))
    constants = calibration(algorithm, fabric.gpu)
    rates = f"{rates_from(constants)}: {constants.source}"
    typer.echo(f"estimated: all-to-all rates are {rates}")
    if json_to is not None:
        data = {"topology": fabric.name, "algorithm": algorithm, "rates": rates, "rows": [vars(row) for row in rows]}
        write_files(json_to.parent, {json_to.name: marked("bandwidth table", json.dumps(data, indent=1).encode())})


def record(
    out: Path = typer.Option(..., "--out", help="Recording to write (.npz)."),
    balancing: str = typer.Option("v3", "--balancing", help="none, v1, v2 or v3."),
    steps: int | None = typer.Option(None, "--steps", help="Training steps, exactly."),
    seconds: float | None = typer.Option(None, "--seconds", help="Training time instead of steps; default 420."),
    seed: int = typer.Option(0, "--seed", help="Seed of weights and batches."),
    threads: int = typer.Option(2, "--threads", min=1, help="CPU threads."),
    device: str = typer.Option("cpu", "--device", help="cpu or cuda."),
    size: str = typer.Option("tiny", "--size", help="tiny or small."),
    batch_sequences: int = typer.Option(8, "--batch-sequences", min=1, help="Sequences of 256 bytes per step."),
    learning_rate: float = typer.Option(2e-3, "--learning-rate", help="Peak learning rate."),
    bias_rate: float | None = typer.Option(None, "--bias-rate", help="Step of the bias, v3 only."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Train the small language model and record its router logits (needs PyTorch: the extra "lab").

    Example: moesim record --balancing v3 --seconds 420 --out my-v3.npz
    """
    from importlib.util import find_spec

    from moesim.errors import ResourceError

    if find_spec("torch") is None:
        raise ResourceError("moesim record needs PyTorch: pip install 'moesim[lab]'")
    from moesim.record import record as train_and_record
    from moesim.record import to_stderr

    train_and_record(
        out,
        balancing=balancing,
        steps=steps,
        seconds=seconds,
        seed=seed,
        threads=threads,
        device=device,
        size=size,
        batch_sequences=batch_sequences,
        learning_rate=learning_rate,
        bias_rate=bias_rate,
        progress=None if quiet else to_stderr,
    )
    typer.echo(str(out))
