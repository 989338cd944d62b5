"""JSON inside a page: what its script hands to BokehJS when a chart comes into view, and the points of a sweep."""

import json
from typing import Any


def script_json(value: Any) -> str:
    """Write JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
