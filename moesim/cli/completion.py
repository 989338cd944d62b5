"""What the shell offers for a value: names that ship, keys of a scenario, numbers of a summary."""

import inspect
from collections.abc import Callable
from typing import Any

import typer


def offer_values(app: typer.Typer) -> None:
    """Let every verb's argument or option of a known name complete its values."""
    for group in (app, *(below.typer_instance for below in app.registered_groups)):
        for command in group.registered_commands if group is not None else ():
            for name, parameter in inspect.signature(command.callback or offer_values).parameters.items():
                if name in _VALUES:
                    parameter.default.autocompletion = _VALUES[name]


def _scenarios(incomplete: str) -> list[str]:
    from moesim.scenario import shipped_names

    return [name for name in shipped_names("scenarios") if name.startswith(incomplete)]


def _topologies(incomplete: str) -> list[str]:
    from moesim.scenario import shipped_names

    return [name for name in shipped_names("topologies") if name.startswith(incomplete)]


def _models(incomplete: str) -> list[str]:
    from moesim.model import model_names

    return [name for name in model_names() if name.startswith(incomplete)]


def keys(incomplete: str) -> list[tuple[str, str]]:
    """Keys of a scenario below the blocks typed so far, with their meaning; a block ends in a dot, a value in ``=``."""
    from moesim.mistakes import fields_at
    from moesim.scenario import Scenario

    *above, start = incomplete.split(".")
    offered = {name: meaning for name, meaning in fields_at(Scenario, tuple(above)).items() if name.startswith(start)}
    ends = {name: "." if fields_at(Scenario, (*above, name)) else "=" for name in offered}
    return [(".".join((*above, name)) + ends[name], meaning) for name, meaning in offered.items()]


def _numbers(incomplete: str) -> list[str]:
    from moesim.results import DEFINITIONS

    return [name for name in DEFINITIONS if name.startswith(incomplete)]


_VALUES: dict[str, Callable[[str], Any]] = {
    "scenario": _scenarios, "topology": _topologies, "model": _models,
    "override": keys, "axis": keys, "key": _numbers,
}  # fmt: skip
