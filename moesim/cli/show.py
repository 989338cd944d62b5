"""Results as text on a terminal."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moesim.results.definitions import COMPONENTS
from moesim.units import format_bandwidth, format_bytes, format_duration

if TYPE_CHECKING:
    from moesim.results import Result

# Wider than any table here, so that a pipe gets every column in full.
_PIPE_WIDTH = 240


def console() -> Console:
    """Standard output, without colour where it is not a terminal or NO_COLOR is set.

    No markup: names and notes come from files, and a bracket in one is a bracket. Into a pipe or a file goes the whole
    width of a table: what is cut off there is lost.
    """
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(highlight=False, soft_wrap=False, markup=False, width=width)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A plain table; every column but the first is right-aligned."""
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*[text(cell) for cell in row])
    return grid


def text(cell: Any) -> str:
    """A cell as text: numbers with four significant digits, nothing as a dash."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return str(cell)


def with_unit(key: str, value: Any) -> str:
    """A summary value in the unit that its name ends in."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return text(value)
    if key.endswith("_bytes_per_s"):
        return format_bandwidth(value)
    if key.endswith("_s"):
        return format_duration(value)
    if key.endswith("_bytes"):
        return format_bytes(value)
    return text(value) if isinstance(value, float) else f"{value:,}"


def in_words(result: "Result", key: str) -> str:
    """A number of the summary with its interval where it has one."""
    return result.value(key).words(lambda number: with_unit(key, number))


def print_run(result: "Result") -> None:
    """The first screen of a run: verdict, times, loads, where the numbers come from."""
    out, summary = console(), result.summary
    out.print(Text(summary["name"], style="bold"), f": {summary['bottleneck']}", sep="", soft_wrap=True)
    total = summary["layer_time_s"]

    rows = [("layer", in_words(result, "layer_time_s"), "100 %")]
    for key in COMPONENTS:
        share = summary[key] / total if total else 0.0
        name = key.removesuffix("_time_s").replace("_", " ")
        rows.append((f"  {name}", in_words(result, key), f"{share:.1%}"))
    rows.append(("lower bound", in_words(result, "lower_bound_s"), ""))
    rows.append(("wait, mean over ranks", in_words(result, "rank_wait_mean_s"), ""))
    out.print(table("", ("time per layer, critical rank", "", "share"), rows))
    names = (
        "expert_load_max_over_mean",
        "uniform_router_expert_max_over_mean",
        "rank_load_max_over_mean",
        "node_load_max_over_mean",
        "copies_per_token",
        "rank_copies_per_token",
        "node_copies_per_token",
        "nvlink_wire_bytes",
        "nic_wire_bytes",
        "gate_mass_lost",
        "bottleneck_utilisation",
    )
    out.print(table("", ("load and traffic", ""), [(key, in_words(result, key)) for key in names]))
    for note in result.notes:
        out.print(f"{note.kind}: {note.text}", style="yellow" if note.kind in ("degraded", "counterfactual") else "")


def print_variants(title: str, results: "dict[str, Result]") -> None:
    """One line per variant; those that no model was trained for are marked."""
    columns = {
        "layer_time_s": "layer",
        "dispatch_time_s": "dispatch",
        "expert_compute_time_s": "experts",
        "combine_time_s": "combine",
        "rank_wait_mean_s": "wait, mean rank",
        "expert_load_max_over_mean": "expert max/mean",
        "rank_load_max_over_mean": "rank",
        "node_load_max_over_mean": "node",
        "node_copies_per_token": "nodes/token",
        "gate_mass_lost": "gate mass lost",
    }
    reasons = {tuple(note.text for note in one.notes if note.kind == "counterfactual") for one in results.values()}
    alike = len(reasons) == 1 and len(results) > 1
    rows = []
    for name, result in results.items():
        mark = " *" if result.summary["counterfactual"] and not alike else ""
        layer, *others = columns
        numbers = [with_unit(key, result.summary[key]) for key in others]
        rows.append((name + mark, in_words(result, layer), *numbers))
    console().print(table(title, ("variant", *columns.values()), rows))
    if alike and any(reasons):
        console().print(
            f"counterfactual in all alike, so no difference comes from it: {'; '.join(*reasons)}", soft_wrap=True
        )
    elif any(reasons):
        console().print("* counterfactual: not the router that these logits were trained with")
