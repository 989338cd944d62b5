"""Kernel times, tables and imports as text on a terminal or as JSON, and as a picture."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from moesim.compute import KernelTable
    from moesim.compute.curves import KernelCurve
    from moesim.compute.importers import Imported
    from moesim.report.kernel_figure import PricedCurve


def print_rows(rows: Iterable[dict[str, Any]], as_json: bool) -> None:
    """Print rows of equal keys as a table, or as JSON."""
    from moesim.cli.show import console, table

    rows = list(rows)
    if as_json:
        typer.echo(json.dumps(rows, indent=1, allow_nan=False))
        return
    console().print(table("", tuple(rows[0]) if rows else (), [tuple(row.values()) for row in rows], words=True))


def share(value: float | None) -> str | None:
    """A share as text, nothing for an unknown one."""
    return None if value is None else f"{100 * value:.1f} %"


def own_rows(table: "KernelTable") -> list[dict[str, str]]:
    """Rows of a user's table, shape by shape: range of both axes and leave-one-out error; empty for a GPU's."""
    from moesim.compute.importers import error_words
    from moesim.compute.interpolate import Grid
    from moesim.compute.table_format import AXES, OVER_EXPERTS

    if table.measured is None:
        return []
    own = table.measured
    shapes: list[tuple[str, str, tuple[int, ...], Grid, str]] = []
    for s, surface in own.surfaces.items():
        shapes.append((s.kernel, s.dtype, (s.hidden, s.inter), surface.grid, own.layouts.get(s, "")))
    shapes += [(*key, grid, "") for key, grid in own.grids.items()]
    rows = []
    for kernel, dtype, fixed, grid, layout in shapes:
        axes = AXES[kernel]
        low, high = min(curve.x[0] for curve in grid.curves), max(curve.x[-1] for curve in grid.curves)
        ranges = [_range(low, high, axes.inner)]
        if axes.outer:
            ranges.append(_range(grid.outer[0], grid.outer[-1], axes.outer))
        sizes = ", ".join(f"{column} {size}" for column, size in zip(axes.fixed, fixed, strict=True))
        named = f"{kernel}_{dtype}" if kernel in (*OVER_EXPERTS, "gemm") else kernel
        rows.append(
            {
                "kernel": named,
                "source": f"measured, {grid.points} points",
                "range": ", ".join(filter(None, (*ranges, sizes, dtype if named == kernel else "", layout))),
                "error": f"leave one out: {error_words(grid)}",
            }
        )
    return rows


def _range(low: float, high: float, axis: str) -> str:
    span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return f"{span} {axis.replace('_', ' ')}"


def print_time(table: "KernelTable", kernel: str, sizes: dict[str, Any], as_json: bool) -> None:
    """One kernel's time with its source, error, band and floor."""
    import numpy as np

    from moesim.compute.curves import kernel_curve, priced
    from moesim.compute.table_format import AXES
    from moesim.units import format_duration

    time = priced(table, kernel, sizes)
    stem = kernel.rpartition("_")[0] if kernel not in AXES else kernel
    answer: dict[str, Any] = {"kernel": kernel, "table": table.name}
    floor = rate = None
    if stem in AXES:
        axes = AXES[stem]
        at = kernel_curve(table, kernel, sizes, np.array([float(sizes[axes.inner])]))
        answer |= {"sizes": {axes.inner: sizes[axes.inner], **at.sizes}}
        floor = float(at.floor[0])
        rate = float(at.flops[0]) / time.seconds if at.flops[0] else None
    else:
        answer |= {"sizes": sizes}
    answer |= {"seconds": time.seconds, "source": time.source, "error": time.error, "note": time.note,
               "shares": dict(time.shares), "floor_s": floor, "flops_per_s": rate}  # fmt: skip
    if as_json:
        typer.echo(json.dumps(answer, indent=1, allow_nan=False))
        return
    error = "error unknown" if time.error is None else f"median error {100 * time.error:.1f} %"
    typer.echo(f"{kernel} on {table.gpu.title}: {', '.join(f'{k} {v}' for k, v in answer['sizes'].items())}")
    typer.echo(f"time   {format_duration(time.seconds)} ({time.source}, {error})")
    if time.error is not None:
        ends = (max(time.seconds * (1 - time.error), floor or 0.0), time.seconds * (1 + time.error))
        typer.echo(f"band   {' to '.join(map(format_duration, ends))}")
    if floor is not None:
        typer.echo(f"floor  {format_duration(floor)}, {100 * floor / time.seconds:.0f} % of the time")
    if rate is not None:
        typer.echo(f"rate   {rate / 1e12:.4g} TFLOP/s")
    if len(time.shares) > 1:
        typer.echo(f"shares {', '.join(f'{name} {100 * share:.0f} %' for name, share in time.shares.items())}")
    if time.note:
        typer.echo(f"note   {time.note}")


def print_import(made: "Imported", out: Path, as_json: bool) -> None:
    """What was read, taken and refused, the notes, and the errors of the table."""
    from moesim.compute.importers import error_words

    if as_json:
        answer = {
            "table": str(out),
            "format": made.format,
            "gpu": made.gpu.name,
            "read": made.read,
            "taken": len(made.rows),
            "merged": made.merged,
            "refused": made.refused,
            "notes": list(made.notes),
            "leave_one_out": {
                shape: {"points": grid.points, "median": grid.inner_error.median, "p90": grid.inner_error.p90,
                        "method": grid.inner_error.method, "across_median": grid.outer_error.median,
                        "across_p90": grid.outer_error.p90, "across_method": grid.outer_error.method}
                for shape, grid in made.accuracies()
            },
        }  # fmt: skip
        typer.echo(json.dumps(answer, indent=1, allow_nan=False))
        return
    typer.echo(f"{made.path.name} ({made.format}): {made.read} rows read, {len(made.rows)} in the table")
    for reason, count in made.refused.items():
        typer.echo(f"refused {count:6} x {reason}")
    for note in made.notes:
        typer.echo(f"note: {note}")
    for shape, grid in made.accuracies():
        typer.echo(f"leave one out: {shape}, {grid.points} points: {error_words(grid)}")
    typer.echo(str(out))


def picture(
    model: "KernelTable", measured: "KernelTable | None", kernel: str, sizes: dict[str, Any]
) -> dict[str, bytes]:
    """Draw the price of a GPU's table and, where there is one, of a measured table with its points."""
    import numpy as np

    from moesim.compute.curves import kernel_curve, measured_points
    from moesim.report.kernel_figure import KernelPicture, kernel_figure

    first = kernel_curve(model, kernel, sizes)
    tables, points = [model], {}
    if measured is not None and measured.measured is not None:
        points = measured_points(measured.measured, kernel, first.sizes)
        x = np.unique(np.concatenate([first.x, *(own.x[own.x == np.floor(own.x)] for own in points.values())]))
        first = kernel_curve(model, kernel, sizes, x)
        tables = [measured, model]
    drawing = KernelPicture(
        title=f"{kernel} on {model.gpu.title}",
        subtitle=", ".join(f"{column} {size}" for column, size in first.sizes.items()),
        x_label=first.axis.replace("_", " "),
        x=first.x,
        floor=first.floor,
        flops=first.flops,
        curves=tuple(_line(table, kernel_curve(table, kernel, sizes, first.x)) for table in tables),
        points={f"measured, {cache} cache": (own.x, own.y) for cache, own in points.items()},
    )
    return kernel_figure(drawing)


def _line(table: "KernelTable", curve: "KernelCurve") -> "PricedCurve":
    import numpy as np

    from moesim.report.kernel_figure import PricedCurve

    sources = ", ".join(dict.fromkeys(curve.source))
    band = "; band: its median error" if np.isfinite(curve.low).any() else ""
    outside = np.array([source == "extrapolated" for source in curve.source])
    label = f"{Path(table.name).name}: {sources}{band}"
    return PricedCurve(label, curve.x, curve.seconds, curve.low, curve.high, outside)
