"""The tables and plans of ``moesim/data/validate`` as plain data."""

import csv
from functools import cache
from importlib.resources import files
from typing import Any

from ruamel.yaml import YAML

_FOLDER = files("moesim") / "data" / "validate"


@cache
def shipped_lines(name: str) -> list[dict[str, str]]:
    """Read a table: its lines as text by column."""
    with (_FOLDER / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def shipped_yaml(name: str) -> Any:
    """Read a YAML file."""
    return YAML(typ="safe").load((_FOLDER / name).read_text(encoding="utf-8"))
