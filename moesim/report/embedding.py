"""Charts as JSON for the page, which its script hands to BokehJS when they come into view.

Ids are renumbered in the order met, so that equal charts give equal bytes.
"""

import json
from typing import Any

from moesim.report.interactive import Drawn, bokeh_figures


def chart_json(chart: Drawn) -> list[tuple[str, str]]:
    """Return what the page's script needs to draw a chart.

    Returns:
        One ``(name, JSON)`` per view of the chart: a heat map has one per matrix, others a single nameless one.
        The JSON is safe inside a script element.
    """
    figures = bokeh_figures(chart)
    return [(name, _serialised(figure, f"{chart.key}{i}")) for i, (name, figure) in enumerate(figures.items())]


def script_json(value: Any) -> str:
    """Write JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _serialised(figure: Any, prefix: str) -> str:
    from bokeh.document import Document

    document = Document(title="")
    document.add_root(figure)
    # Through text first: parts of Bokeh's value are shared, and shared parts would be renumbered twice.
    item = json.loads(json.dumps({"root_id": figure.id, "doc": document.to_json(deferred=False)}))
    ids: dict[str, str] = {}
    _renumber(item["doc"], ids, prefix)
    item["root_id"] = ids[item["root_id"]]
    return script_json(item)


def _renumber(value: Any, ids: dict[str, str], prefix: str) -> None:
    """Replace the ids of model objects and of references to them, in the order met."""
    if isinstance(value, list):
        for entry in value:
            _renumber(entry, ids, prefix)
    elif isinstance(value, dict):
        if isinstance(value.get("id"), str) and (len(value) == 1 or value.get("type") == "object"):
            value["id"] = ids.setdefault(value["id"], f"{prefix}-{len(ids)}")
        for entry in value.values():
            _renumber(entry, ids, prefix)
