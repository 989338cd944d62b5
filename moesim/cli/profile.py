"""``moesim profile``: the kernels of an MoE layer, timed on the device at hand."""

from pathlib import Path

import typer


def profile(
    out: Path = typer.Option(..., "--out", help="Table to write, or to continue (.csv)."),
    device: str = typer.Option("cuda", "--device", help="cuda, or cpu at small sizes."),
    budget: float = typer.Option(480.0, "--budget", help="Seconds; coarse points come first, so any part is usable."),
    quick: bool = typer.Option(False, "--quick", help="Only the coarsest points of the largest model."),
    families: str | None = typer.Option(None, "--families", help="Comma-separated families of kernels; default all."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Time the kernels of an MoE layer on this GPU and write them as a table (needs PyTorch: the extra "gpu").

    Example: moesim profile --out h100.csv
    """
    from moesim.profile.command import run

    typer.echo(run(out, device, budget, quick, families, quiet))
