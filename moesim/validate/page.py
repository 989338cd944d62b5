"""A page of the comparison: what was simulated against what was published, one self-contained HTML file without script.

Two plots for each table, drawn here as SVG: simulated against published on logarithmic axes, and the error against the
message. Below them every row.
"""

import html
import math
from collections.abc import Sequence

from moesim.validate.causes import cause_of, reason
from moesim.validate.evaluate import Outcome
from moesim.validate.ledger import FIT
from moesim.validate.statistics import Spread, by_table, counts, fitted, mean_over_tables, misses, suspect
from moesim.validate.unseen import Unseen

_WIDTH, _HEIGHT, _EDGE = 380, 260, 44
# Held out, fitted, suspect: shapes differ too, for readers who do not tell the colours apart.
_COLOURS = {"held-out": "#0b6e99", FIT: "#d07000", "suspect": "#999999"}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1b2430}
table{border-collapse:collapse;font-size:.85rem;margin:.5rem 0}td,th{padding:.15rem .6rem;text-align:right}
td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f3f5f7}svg{max-width:100%}
figure{display:inline-block;margin:.5rem .5rem .5rem 0}figcaption{font-size:.85rem}summary{cursor:pointer}
"""


def page_of(outcomes: Sequence[Outcome], elsewhere: Sequence[Unseen], left_out: int = 0) -> str:
    """Return the page.

    Args:
        outcomes: rows and what was simulated.
        elsewhere: tables predicted with another source's constants.
        left_out: rows of the ledger that were not read.
    """
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>moesim: validation</title>',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<style>{_STYLE}</style></head><body><h1>Published against simulated</h1>",
        _summary(outcomes, left_out),
        _unseen(elsewhere),
    ]
    for name, rows in by_table(outcomes).items():
        parts.append(_table(name, rows))
    return "\n".join(parts) + "\n</body></html>\n"


def _summary(outcomes: Sequence[Outcome], left_out: int) -> str:
    lines = ["<p>Rows marked <em>held out</em> took no part in any fit; each is a benchmark run end to end.</p>"]
    for name, choose in (("Held out", counts), ("Fitted", fitted)):
        spread, mean = Spread.of(filter(choose, outcomes)), mean_over_tables(outcomes, choose)
        if spread is not None and mean is not None:
            lines.append(
                f"<p><strong>{name}</strong>: {spread.rows:,} rows, absolute error median {_percent(spread.median)}, "
                f"90th percentile {_percent(spread.p90)}, worst {_percent(spread.worst)}; mean over tables "
                f"{_percent(mean[0])} and {_percent(mean[1])}.</p>"
            )
    missed = misses(outcomes)
    if missed:
        lines.append("<h2>What misses its bar</h2><table><tr><th>table<th>rows<th>median<th>90 %<th>cause</tr>")
        for name, which, spread in missed:
            lines.append(
                f"<tr><td>{html.escape(name)}<td>{which}<td>{_percent(spread.median)}<td>{_percent(spread.p90)}"
                f"<td>{html.escape(cause_of(name))}</tr>"
            )
        lines.append("</table>")
    if left_out:
        lines.append(f"<p>{left_out:,} rows of the ledger belong to extracts that were not read for this page.</p>")
    return "\n".join(lines)


def _unseen(elsewhere: Sequence[Unseen]) -> str:
    if not elsewhere:
        return ""
    lines = [
        "<h2>The error to expect on an unseen cluster</h2><p>One source, with the constants of another that ran the "
        "same library on the same GPU; then after <code>moesim calibrate</code> on a few of its rows.</p><table><tr>"
        "<th>table<th>constants<th>rows<th>median<th>from<th>to<th>calibrated on<th>median<th>90 %</tr>"
    ]
    for one in elsewhere:
        before, after = Spread.of_errors(one.before), Spread.of_errors(one.after)
        lines.append(
            f"<tr><td>{html.escape(one.what)}<td>{html.escape(one.calibration)}<td>{before.rows}"
            f"<td>{_percent(before.median)}<td>{100 * min(one.before):+.1f} %<td>{100 * max(one.before):+.1f} %"
            f"<td>{len(one.measured)}<td>{_percent(after.median)}<td>{_percent(after.p90)}</tr>"
        )
    return "\n".join(lines) + "</table>"


def _table(name: str, rows: Sequence[Outcome]) -> str:
    simulated = [outcome for outcome in rows if outcome.simulated is not None]
    parts = [f"<h2>{html.escape(name)}</h2><p>{html.escape(rows[0].row.source)}, {html.escape(rows[0].row.gpu)}</p>"]
    for label, choose in (("fitted", fitted), ("held out", counts), ("suspect", suspect)):
        spread = Spread.of(filter(choose, rows))
        if spread is not None:
            parts.append(
                f"<p>{label}: {spread.rows:,} rows, median {_percent(spread.median)}, 90th percentile "
                f"{_percent(spread.p90)}, worst {_percent(spread.worst)}</p>"
            )
    if len(simulated) > 1:
        parts += [_against(name, simulated), _over_size(name, simulated)]
    parts.append(
        f"<details><summary>{len(rows):,} rows</summary><table><tr><th>row<th>quantity<th>published<th>simulated"
        "<th>error<th>role<th>reason</tr>"
    )
    for outcome in rows:
        row, error = outcome.row, outcome.error
        parts.append(
            f"<tr><td>{html.escape(row.key)}<td>{row.quantity}<td>{row.published:.6g}"
            f"<td>{'-' if outcome.simulated is None else f'{outcome.simulated:.6g}'}"
            f"<td>{'-' if error is None else f'{100 * error:+.1f} %'}<td>{outcome.entry.role}"
            f"<td>{html.escape(reason(outcome))}</tr>"
        )
    parts.append("</table></details>")
    return "\n".join(parts)


def _against(name: str, rows: Sequence[Outcome]) -> str:
    """Simulated against published; the diagonal is no error."""
    points = [(outcome.row.published, outcome.simulated or 0.0, _kind(outcome)) for outcome in rows]
    low = min(min(x, y) for x, y, _ in points) * 0.9
    high = max(max(x, y) for x, y, _ in points) * 1.1
    diagonal = f'<line x1="{_EDGE}" y1="{_HEIGHT - _EDGE}" x2="{_WIDTH - 10}" y2="10" stroke="#888"/>'
    return _plot(
        f"{name}: simulated against published ({rows[0].row.quantity})",
        points,
        (low, high),
        (low, high),
        True,
        diagonal,
    )


def _over_size(name: str, rows: Sequence[Outcome]) -> str:
    """Error over the message; the band is ten per cent."""
    points = [(float(max(outcome.row.tokens, 1)), 100 * (outcome.error or 0.0), _kind(outcome)) for outcome in rows]
    reach = max(20.0, *(abs(y) for _, y, _ in points)) * 1.05
    sizes = [x for x, _, _ in points]
    middle, band = (_HEIGHT - _EDGE + 10) / 2, (_HEIGHT - _EDGE - 10) / 2 * 10 / reach
    ten = (
        f'<rect x="{_EDGE}" y="{middle - band:.1f}" width="{_WIDTH - 10 - _EDGE}" height="{2 * band:.1f}" '
        f'fill="#0b6e99" opacity="0.08"/>'
    )
    what = "bytes per rank" if rows[0].row.op == "alltoall" else "tokens per rank"
    return _plot(
        f"{name}: error in % over {what}", points, (min(sizes) * 0.8, max(sizes) * 1.25), (-reach, reach), False, ten
    )


def _plot(
    title: str,
    points: Sequence[tuple[float, float, str]],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    y_logarithmic: bool,
    behind: str,
) -> str:
    def place(value: float, ends: tuple[float, float], logarithmic: bool) -> float:
        if logarithmic:
            value, ends = math.log(value), (math.log(ends[0]), math.log(ends[1]))
        return (value - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.5

    marks = []
    for x, y, kind in points:
        left = _EDGE + place(x, x_range, True) * (_WIDTH - 10 - _EDGE)
        top = _HEIGHT - _EDGE - place(y, y_range, y_logarithmic) * (_HEIGHT - _EDGE - 10)
        marks.append(_mark(left, top, kind))
    bottom = _HEIGHT - _EDGE
    labels = (
        f'<text x="{_EDGE}" y="{bottom + 16}">{x_range[0]:.3g}</text>'
        f'<text x="{_WIDTH - 10}" y="{bottom + 16}" text-anchor="end">{x_range[1]:.3g}</text>'
        f'<text x="{_EDGE - 4}" y="{bottom}" text-anchor="end">{y_range[0]:.3g}</text>'
        f'<text x="{_EDGE - 4}" y="18" text-anchor="end">{y_range[1]:.3g}</text>'
    )
    frame = f'<path d="M{_EDGE} 10V{bottom}H{_WIDTH - 10}" fill="none" stroke="#444"/>'
    said = html.escape(title)
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{said}" font-size="10" fill="#333">{behind}{frame}{labels}{"".join(marks)}</svg>'
        f"<figcaption>{said}</figcaption></figure>"
    )


def _mark(left: float, top: float, kind: str) -> str:
    colour = _COLOURS[kind]
    if kind == FIT:
        return f'<rect x="{left - 2.5:.1f}" y="{top - 2.5:.1f}" width="5" height="5" fill="{colour}" opacity="0.8"/>'
    if kind == "suspect":
        return (
            f'<path d="M{left - 2.5:.1f} {top - 2.5:.1f}l5 5m0 -5l-5 5" stroke="{colour}" stroke-width="1.2" '
            f'fill="none"/>'
        )
    return f'<circle cx="{left:.1f}" cy="{top:.1f}" r="2.4" fill="{colour}" opacity="0.7"/>'


def _kind(outcome: Outcome) -> str:
    return "suspect" if outcome.entry.suspect else outcome.entry.role


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
