"""Charts as JSON for the page, which its script hands to BokehJS when they come into view."""

import json
from typing import Any

from moesim.report.interactive import Drawn, documents


def chart_json(chart: Drawn) -> list[tuple[str, str]]:
    """Return what the page's script needs to draw a chart.

    Returns:
        One ``(name, JSON)`` per view of the chart: a heat map has one per matrix, others a single nameless one.
        The JSON is safe inside a script element.
    """
    return [(name, script_json(root)) for name, root in documents(chart).items()]


def script_json(value: Any) -> str:
    """Write JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
