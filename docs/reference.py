"""Write docs/reference.md: every verb with its options, every key of a scenario, from what the program itself declares.

python docs/reference.py
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from moesim.cli.app import program
from moesim.results import DEFINITIONS
from moesim.scenario import json_schema

PAGE = Path(__file__).with_name("reference.md")
HEAD = """# Reference

Written by `python docs/reference.py` from the program itself; explained in [cli.md](cli.md),
[scenario.md](scenario.md) and [method.md](method.md).
"""


def cell(text: object) -> str:
    """Return text for a cell of a table: one line, no bars."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").strip()


def table(*rows: tuple[object, ...]) -> list[str]:
    """Return rows, the heads first, as lines of Markdown."""
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return ["", lines[0], "|" + "---|" * len(rows[0]), *lines[1:], ""]


def verbs(command: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every verb with its words, sub-verbs as verbs of their own."""
    for name, below in command.commands.items():
        if hasattr(below, "commands"):
            yield from verbs(below, (*above, name))
        else:
            yield " ".join((*above, name)), below


def of_verb(words: str, command: Any) -> list[str]:
    """Return a verb's section: what it does, its arguments and options."""
    rows: list[tuple[object, ...]] = [("argument or option", "default", "meaning")]
    for one in command.params:
        names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
        if one.param_type_name == "argument":
            names = f"`{one.name.upper()}`"
        shown = "" if one.default in (None, [], (), "", False) else f"`{one.default}`"
        rows.append((names, "required" if one.required else shown, getattr(one, "help", "") or ""))
    about = cell(command.help.split("\n\n")[0])
    return [f"### moesim {words}", "", about, *(table(*rows) if len(rows) > 1 else [""])]


def keys(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of a scenario, dotted, with what the schema says of it."""

    def inside(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "$ref" in node:
            yield schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        for name in ("anyOf", "oneOf"):
            for choice in node.get(name, ()):
                yield from inside(choice)
        if isinstance(node.get("items"), dict):
            yield from inside(node["items"])

    def walk(block: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, node in block.get("properties", {}).items():
            yield path + name, node
            for below in inside(node):
                yield from walk(below, f"{path}{name}.")

    yield from walk(schema, "")


def choices(node: dict[str, Any]) -> str:
    """Return what a key may hold: its names, or its type with the bounds."""
    found = []
    for one in (node, *node.get("anyOf", ()), *node.get("oneOf", ())):
        found += [f"`{value}`" for value in one.get("enum", [one["const"]] if "const" in one else [])]
        if "enum" not in one and one.get("type") not in (None, "null"):
            bounds = [f"{sign} {one[name]}" for name, sign in BOUNDS.items() if name in one]
            found.append(" ".join((TYPES.get(one["type"], one["type"]), *bounds)))
    return ", ".join(dict.fromkeys(found))


BOUNDS = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than"}
TYPES = {"integer": "whole number", "string": "text", "boolean": "true or false", "array": "list", "object": "block"}


def page() -> str:
    """Return the page."""
    lines = [HEAD, "## Verbs", ""]
    for words, command in verbs(get_command(program())):
        lines += of_verb(words, command)
    rows: list[tuple[object, ...]] = [("key", "default", "holds", "meaning")]
    seen: dict[str, None] = {}
    for key, node in keys(json_schema()):
        if key in seen:  # of several distributions that share it
            continue
        seen[key] = None
        default = node.get("default")
        shown = "" if default is None or isinstance(default, dict) else f"`{default}`".replace("True", "true")
        rows.append((f"`{key}`", shown.replace("False", "false"), choices(node), node.get("description", "")))
    lines += ["## Keys of a scenario", "", "A default that another key decides is said in the meaning.", *table(*rows)]
    lines += ["## Numbers of a summary", *table(
        ("number", "unit", "meaning"), *((f"`{name}`", one.unit, one.text) for name, one in DEFINITIONS.items())
    )]  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
