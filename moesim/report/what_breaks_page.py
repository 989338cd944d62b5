"""The page of what breaks: the map of the cluster coloured by what a fault costs there, and every single fault."""

import base64
import re
from collections.abc import Iterator, Sequence

import numpy as np

from moesim.report.charts import TABLE_ROWS, Chart, DotChart, HeatMap
from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.page import render, view_of
from moesim.report.run_page import Verdict
from moesim.results import RankedFault, WhatBreaks

_SECTIONS = [("first", "Result"), ("faults", "Single faults"), ("pairs", "Pairs"), ("rests", "Behind it")]
_MOST_ROWS = 20
_AT_GPU = re.compile(r"n([0-9]+)\.gpu([0-9]+)")
HOW = {
    "simulated": "simulated",
    "alike": "simulated at two",
    "bound only": "bound only",
    "stops": "nothing runs",
    "failed": "failed",
}


def render_what_breaks(found: WhatBreaks, picture: bytes = b"") -> str:
    """Write the page: no other file or network needed, the same bytes for the same answer.

    ``picture``: the map, an SVG.
    """
    return render(
        "what_breaks.html.j2",
        title=f"What breaks {found.scenario}",
        sections=_SECTIONS,
        chips=[f"{found.n_faults:,} single faults", f"{found.n_simulated:,} simulated"],
        verdict=Verdict(found.sentence(), found.severities[:1].upper() + found.severities[1:] + "."),
        subject=found.subject,
        picture=base64.b64encode(picture).decode(),
        charts={chart.key: view_of(chart) for chart in what_breaks_charts(found)},
        faults=faults_table(found),
        pairs=pairs_table(found),
        notes=found.notes,
        command=found.command,
    )


def what_breaks_charts(found: WhatBreaks) -> list[Chart]:
    """The worst faults, and what each kind costs at every GPU."""
    return [*_worst(found), *_by_gpu(found)]


def faults_table(found: WhatBreaks, some: Sequence[RankedFault] = ()) -> DataTable:
    """Every single fault, the worst first, or some of them; those that are alike in one row."""
    bound = any(one.bound_change_s is not None for one in found.faults)
    columns = ("fault", "where", "time", "cost", "cost, share", "bound rises", "bottleneck", "how")
    hints = ("", "the first place; alike: the traffic tells it not apart from the others", f"{found.subject} with it",
             "beyond the time without it", "", "lower bound of a layer, mean", "with the fault",
             "bound only: not simulated, its cost is not known")  # fmt: skip
    rows: list[tuple[Cell, ...]] = [_row(found, one) for one in some or found.faults[:TABLE_ROWS]]
    left = not some and len(found.faults) > len(rows)
    keep = [i for i, name in enumerate(columns) if bound or name != "bound rises"]
    return DataTable(
        tuple(columns[i] for i in keep),
        [tuple(row[i] for i in keep) for row in rows],
        f"The first {len(rows):,} of {len(found.faults):,} rows. All are in what-breaks.json." if left else "",
        tuple(hints[i] for i in keep),
    )


def _row(found: WhatBreaks, one: RankedFault) -> tuple[Cell, ...]:
    share = None if one.cost_s is None else found.share(one.cost_s)
    told = one.bottleneck or one.error.removeprefix("faults: ").partition(";")[0]
    quantities = (Quantity(one.time_s, "s"), Quantity(one.cost_s, "s"), Quantity(share, "%"))
    return (one.what, one.place, *quantities, Quantity(one.bound_change_s, "s"), told, HOW[one.how])


def pairs_table(found: WhatBreaks) -> DataTable:
    """The pairs that were tried."""
    rows: list[tuple[Cell, ...]] = [
        (
            pair.first,
            pair.second,
            Quantity(pair.time_s, "s"),
            Quantity(None if pair.cost_s is None else found.share(pair.cost_s), "%"),
            Quantity(found.share(pair.sum_s), "%"),
        )
        for pair in found.pairs
    ]
    hints = ("", "", f"{found.subject} with both; none: together nothing runs", "", "what the two cost, added up")
    return DataTable(("first", "second", "time", "cost, share", "added up"), rows, hints=hints)


def _worst(found: WhatBreaks) -> Iterator[Chart]:
    worst = found.known[:_MOST_ROWS]
    if worst:
        yield DotChart(
            key="worst",
            title="The worst single faults",
            caption=f"What each adds to {found.subject}; places that are alike are one row.",
            x_label="longer by (%)",
            rows=tuple(f"{one.what}, {one.place}" for one in worst),
            groups={"longer by": np.array([100 * found.share(one.cost_s or 0.0) for one in worst])},
            zero=True,
        )


def _by_gpu(found: WhatBreaks) -> Iterator[Chart]:
    cells = [
        (one.what, int(at[1]), int(at[2]), found.share(one.cost_s))
        for one in found.faults
        for place in one.places
        if one.cost_s is not None and (at := _AT_GPU.fullmatch(place))
    ]
    if not cells:
        return
    shape = max(node for _, node, _, _ in cells) + 1, max(gpu for _, _, gpu, _ in cells) + 1
    matrices = {what: np.full(shape, np.nan) for what in sorted({what for what, *_ in cells})}
    for what, node, gpu, share in cells:
        matrices[what][node, gpu] = 100 * share
    yield HeatMap(
        key="by_gpu",
        title="What a fault costs at each GPU",
        caption=f"By kind of fault: how much longer {found.subject} takes. Blank: not simulated.",
        row_label="node",
        column_label="GPU",
        value_label="longer by (%)",
        matrices=matrices,
        log=False,
    )
