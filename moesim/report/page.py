"""From charts and words to one HTML file that needs nothing else: no network, no other file.

BokehJS is embedded once; every chart is JSON that the page's script draws when it comes into view. The content
security policy lets only these two scripts run, named by their hashes: whatever text a scenario brings, it cannot run.
"""

import base64
import hashlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from moesim.errors import ResourceError
from moesim.report.charts import Chart, SmallMultiples, StackedBars, table_of
from moesim.report.data_table import DataTable, cell_html, row_html
from moesim.report.interactive import documents, height_of, legend_of
from moesim.report.palette import ink_on
from moesim.report.quantities import Floats, named_quantity, quantity
from moesim.results import SUMMARY


def script_json(value: Any) -> str:
    """Write JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True)
class ChartView:
    """A chart as the template places it.

    Attributes:
        chart: the chart.
        kind: ``canvas`` (drawn by Bokeh), ``stacked`` or ``multiples`` (plain HTML).
        views: name and JSON of each view of a canvas.
        height: of the canvas in CSS pixels.
        legend: label, colour and style of what a canvas tells apart.
        table: the numbers behind it.
    """

    chart: Chart
    kind: str
    table: DataTable
    views: list[tuple[str, Markup]] = field(default_factory=list)
    height: int = 0
    legend: list[tuple[str, str, str]] = field(default_factory=list)


def view_of(chart: Chart | None) -> ChartView | None:
    """Prepare a chart for the page; None where there is none to show."""
    if chart is None:
        return None
    if isinstance(chart, StackedBars):
        return ChartView(chart, "stacked", table_of(chart))
    if isinstance(chart, SmallMultiples):
        return ChartView(chart, "multiples", table_of(chart))
    views = [(name, Markup(script_json(root))) for name, root in documents(chart).items()]  # noqa: S704 - escaped
    return ChartView(chart, "canvas", table_of(chart), views, height_of(chart), legend_of(chart))


def render(template: str, **values: Any) -> str:
    """Fill one of the package's templates; text is escaped unless it is ours.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not there.
    """
    own = "".join(_own(name) for name in ("axes.js", "report.js", "print.js"))
    style, scripts = _own("report.css"), [_bokeh_script(), Markup(own)]  # noqa: S704 - files of this package
    return (
        _environment()
        .get_template(template)
        .render(
            style=style,
            scripts=scripts,
            policy="default-src 'none'; "
            f"script-src {' '.join(map(_hash, scripts))}; style-src 'unsafe-inline'; img-src data: blob:; "
            "base-uri 'none'; form-action 'none'",
            definitions=SUMMARY,
            **values,
        )
    )


def filled(template: str, **values: Any) -> str:
    """Fill a template that is no page of its own; text is escaped unless it is ours."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        bytecode_cache=_compiled_templates(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["quantity"] = quantity
    environment.filters["named"] = lambda value, key: named_quantity(key, value)
    environment.filters["cell"] = cell_html
    environment.filters["cells"] = row_html
    environment.filters["sparkline"] = _sparkline
    environment.filters["ink"] = ink_on
    return environment


def _compiled_templates() -> FileSystemBytecodeCache | None:
    """Where compiled templates are kept, as Python keeps modules; None where nothing is to be written."""
    folder = _TEMPLATES / "__pycache__"
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
    writable = os.access(folder, os.W_OK) and not sys.dont_write_bytecode
    return FileSystemBytecodeCache(str(folder)) if writable else None


@cache
def _own(name: str) -> Markup:
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704 - a file of this package


@cache
def _bokeh_script() -> Markup:
    package = find_spec("bokeh")
    if package is None or package.origin is None:
        raise ResourceError("the page needs BokehJS: pip install bokeh")
    script = Path(package.origin).parent / "server" / "static" / "js" / "bokeh.min.js"
    return Markup(script.read_text(encoding="utf-8"))  # noqa: S704 - Bokeh's own


@cache
def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _sparkline(values: Floats, top: float) -> Markup:
    """Points of an SVG polygon, 100 x 40, for a small bar chart of descending values."""
    width = 100 / max(len(values), 1)
    points = ["0,40"]
    for i, value in enumerate(values):
        y = f"{40 - 40 * float(value) / top:.2f}"
        points += [f"{i * width:.2f},{y}", f"{(i + 1) * width:.2f},{y}"]
    return Markup(" ".join([*points, "100,40"]))  # noqa: S704 - numbers only
