"""Results as text on a terminal."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from moesim.cli.outlet import harmless, styled
from moesim.results.definitions import COMPONENTS, GROUP_SUMMARY, STEP_SUMMARY, TRAINING_SUMMARY
from moesim.units import format_bandwidth, format_bytes, format_duration

if TYPE_CHECKING:
    from moesim.results import Result

# No line is as long: into a pipe or a file goes the whole width of a table, what is cut off there is lost.
_PIPE_WIDTH = 100_000
_GAP = 2


class _Terminal(Console):
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))


_OF_A_PLACEMENT = ("layer_time_mean_s", "layer_time_max_s", "busiest_shared", "busiest_shared_s")
LOSSES = ("expert_loss", "device_loss", "communication_loss", "sequence_loss", "z_loss")


def console() -> Console:
    """Standard output, without colour where it is not a terminal or NO_COLOR is set.

    No markup: names and notes come from files, and a bracket in one is a bracket.
    """
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return _Terminal(file=styled(sys.stdout), highlight=False, soft_wrap=False, markup=False, width=width)


@dataclass(frozen=True)
class Sheet:
    """A table that loses nothing on a narrow terminal.

    Columns that do not fit go below the others, beside the first column again; of a table of ``words`` the cells wrap.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    words: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the title and one grid for each part of the columns."""
        if self.title:
            yield Text(self.title, style="italic")
        for part in self._parts(options.max_width):
            grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
            for column in part:
                left = self.words or column == 0
                grid.add_column(
                    self.columns[column],
                    justify="left" if left else "right",
                    no_wrap=column == 0 and self.words,
                    overflow="fold",
                )
            for row in self.rows:
                grid.add_row(*[row[column] for column in part])
            for line in console.render_lines(grid, options, pad=False):
                while line and not line[-1].text.strip():
                    line.pop()
                yield from line[:-1]
                yield from (Segment(last.text.rstrip() + "\n", last.style) for last in line[-1:])

    def _parts(self, width: int) -> list[list[int]]:
        cells = zip(self.columns, *self.rows, strict=True)
        widths = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in cells]
        if self.words or not widths:
            return [list(range(len(widths)))]
        parts, used = [[0]], widths[0]
        for column in range(1, len(widths)):
            if len(parts[-1]) > 1 and used + _GAP + widths[column] > width:
                parts.append([0])
                used = widths[0]
            parts[-1].append(column)
            used += _GAP + widths[column]
        return parts


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], words: bool = False) -> Sheet:
    """A plain table; every column but the first is right-aligned, none of a table of ``words``."""
    return Sheet(title, tuple(columns), [tuple(map(text, row)) for row in rows], words)


def text(cell: Any) -> str:
    """A cell as text: numbers with four significant digits, nothing as a dash."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return harmless(str(cell))


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
    if "tokens_per_second" in summary:
        keys = ("step_time_s", *STEP_SUMMARY, *TRAINING_SUMMARY)
        shown = [(key, in_words(result, key)) for key in keys if summary.get(key) is not None]
        out.print(table("", ("whole step", ""), shown))
    out.print(table("", ("time per layer, critical rank", "", "share"), rows))
    if "groups" in summary:
        shown = [(key, in_words(result, key)) for key in GROUP_SUMMARY]
        out.print(table("", ("groups on one cluster", ""), shown))
        columns = ("placement of groups", "layer, mean group", "slowest", "busiest shared link", "at full rate")
        placed = [
            (one["placement"], *(with_unit(key, one.get(key, one.get("not"))) for key in _OF_A_PLACEMENT))
            for one in result.explanation["groups"]["placements"]
        ]
        out.print(table("", columns, placed))
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
    faults = [
        (one["name"], format_duration(one[f"{one.get('what', 'layer')}_time_s"]),
         f"{round(one['longer_by'], 4) + 0.0:+.2%}",
         f"{one['held_by']}: {format_duration(one['held_s'])}" if one.get("held_by") else None,
         f"{one['waited_on']}: {format_duration(one['waited_on_s'])} each" if one["waited_on"] else None)
        for one in result.explanation.get("faults", ())
    ]  # fmt: skip
    if faults:
        what = result.explanation["faults"][0].get("what", "layer")
        columns = ("what the faults cost", what, "", "a flow is held longest by", "ranks wait most for, per layer")
        out.print(table("", columns, faults))
    losses = [(key, in_words(result, key)) for key in LOSSES if summary[key] is not None]
    if losses:
        out.print(table("", ("balance losses", ""), losses))
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
    if all("groups" in one.summary for one in results.values()):
        columns |= {"group_layer_time_mean_s": "mean group", "contention_cost": "contention"}
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
