"""Which keys of the resolved scenario differ between runs."""

from collections.abc import Iterator
from typing import Any


def changed_keys(scenario: str, other: str) -> list[tuple[str, str, str]]:
    """Compare two resolved scenarios.

    ``scenario``: YAML of the run to compare with; ``other``: YAML of the run in question. Returns ``(dotted key, value,
    other value)`` of each key that differs, ``-`` where a scenario lacks it; the name is left out.
    """
    left, right = dict(_leaves(_read(scenario), "")), dict(_leaves(_read(other), ""))
    keys = sorted({*left, *right} - {"name"})
    return [(key, left.get(key, "-"), right.get(key, "-")) for key in keys if left.get(key) != right.get(key)]


def recording_name(scenario: str) -> str:
    """Name of the recording that a resolved scenario draws its logits from; empty where it has none."""
    workload = _read(scenario).get("workload") or {}
    recording = workload.get("recording") or {}
    return str(recording.get("name", ""))


def workload_of(scenario: str) -> str:
    """The workload section of a resolved scenario as text: equal for runs on the same tokens."""
    return repr(list(_leaves(_read(scenario).get("workload"), "")))


def _read(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML

    content = YAML(typ="safe", pure=True).load(text)
    return content if isinstance(content, dict) else {}


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, entry in value.items():
            yield from _leaves(entry, f"{key}.{name}" if key else str(name))
    else:
        yield key, str(value)
