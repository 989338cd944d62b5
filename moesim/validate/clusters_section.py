"""What the validation page leads with: clusters predicted by all others, whence the rows, constants against rows."""

from collections.abc import Sequence

import numpy as np

from moesim.alltoall_library import ALGORITHMS
from moesim.report import Cell, ChartView, DataTable, DotChart, view_of
from moesim.traffic import find_set, set_names, way_between
from moesim.validate.clusters_left_out import LeftOut, expectations
from moesim.validate.error_spread import Spread
from moesim.validate.listed_clusters import listed_rows
from moesim.validate.shipped_files import shipped_yaml


def verdict(rows: Sequence[LeftOut]) -> tuple[str, str]:
    """What to expect on a cluster that nobody measured: a headline, and what it rests on."""
    every = expectations(rows)[0]
    side = "fast" if every.signed < 0 else "slow"
    headline = (
        f"On a cluster that nobody measured, expect a median error of {_percent(every.median)} %, one time in ten more "
        f"than {_percent(every.p90)} %."
    )
    return headline, (
        f"That is {every.rows:,} figures of {every.clusters} clusters, each predicted by all others; the median is "
        f"{_percent(abs(every.signed))} % too {side}, {100 * every.covered:.0f} % lie inside their 80 % interval. "
    )


def clusters_tables(rows: Sequence[LeftOut]) -> list[tuple[str, str, DataTable]]:
    """The tables of the section, each with its title and what it says."""
    return [
        (
            "By library and transport",
            "Each cluster predicted by all others, error of the time. A signed median below 0 is too fast.",
            expected_table(rows),
        ),
        (
            "By cluster",
            "The split of the ledger: a cluster is left out with all its rows. Rows whose authors report a fault are "
            "neither fitted nor counted.",
            _clusters_table(rows),
        ),
        (
            "Constants against rows",
            "Free constants of each set and the rows that they were fitted on. Where there are as many constants as "
            "rows, what the fit leaves says nothing of its error.",
            _constants_table(),
        ),
    ]


def expected_chart(rows: Sequence[LeftOut]) -> ChartView | None:
    """Median, ninth decile and bias of each library over each transport."""
    found = expectations(rows)
    return view_of(
        DotChart(
            "left-out",
            "On a cluster that nobody measured",
            "Error of the time, each cluster predicted by all others, by library and transport. The median with its "
            "sign is the bias: below 0 the simulation is too fast.",
            "error, %",
            tuple(one.what for one in found),
            {
                "median": np.array([100 * one.median for one in found]),
                "90th percentile": np.array([100 * one.p90 for one in found]),
                "median with its sign": np.array([100 * one.signed for one in found]),
            },
        )
    )


def expected_table(rows: Sequence[LeftOut]) -> DataTable:
    """The same in numbers, with rows, clusters and how many lie in their interval."""
    heads = ("what", "rows", "clusters", "median, %", "90th percentile, %", "signed median, %", "inside interval, %")
    return DataTable(
        heads,
        [
            (
                one.what, one.rows, one.clusters, _percent(one.median), _percent(one.p90), f"{100 * one.signed:+.1f}",
                f"{100 * one.covered:.0f}",
            )
            for one in expectations(rows)
        ],
    )  # fmt: skip


def _clusters_table(rows: Sequence[LeftOut]) -> DataTable:
    """Every cluster of the list: what it is, whence its rows, and how far off it was when left out."""
    off = {one.row: one for one in rows}
    found: dict[str, list[tuple[str, str, str, str]]] = {}
    for row in listed_rows():
        way = way_between(row.gpu, row.transport, row.nodes)
        found.setdefault(row.cluster, []).append((row.key, row.gpu, way, row.source))
    lines: list[tuple[Cell, ...]] = []
    for cluster, listed in found.items():
        errors = [off[key].error for key, *_ in listed if key in off]
        lines.append(
            (
                cluster,
                *(", ".join(dict.fromkeys(each)) for each in list(zip(*listed, strict=True))[1:3]),
                len(errors),
                len(listed) - len(errors),
                _percent(Spread.of_errors(errors).median) if errors else None,
                f"{100 * float(np.median(errors)):+.1f}" if errors else None,
                "; ".join(dict.fromkeys(source for *_, source in listed)),
            )
        )
    heads = ("cluster", "GPU", "transport", "rows", "with a fault", "median, %", "signed median, %", "source")
    return DataTable(heads, lines)


def _constants_table() -> DataTable:
    """Free constants of every set that ships against the rows that they were fitted on."""
    free = shipped_yaml("free_constants.yaml")["free"]
    lines: list[tuple[Cell, ...]] = []
    for made in (find_set(algorithm, "h100", name) for algorithm in ALGORITHMS for name in set_names(algorithm)):
        constants = len(made.uncertain) if made.clusters else len(free.get(made.name, ()))
        rows = sum(made.clusters.values()) or len(made.rows)
        if constants:
            mark = "as many constants as rows" if constants >= rows else ""
            lines.append((made.name, constants, rows, len(made.clusters) or 1, mark))
    return DataTable(("set", "free constants", "rows", "clusters", ""), lines)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
