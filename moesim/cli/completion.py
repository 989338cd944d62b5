"""What the shell offers for a value: names that ship, keys of a scenario, numbers of a summary."""

from collections.abc import Iterable


def scenarios(incomplete: str) -> list[str]:
    """Scenarios that ship."""
    from moesim.scenario import shipped_names

    return _starting(incomplete, shipped_names("scenarios"))


def topologies(incomplete: str) -> list[str]:
    """Topologies that ship."""
    from moesim.scenario import shipped_names

    return _starting(incomplete, shipped_names("topologies"))


def models(incomplete: str) -> list[str]:
    """Published models."""
    from moesim.model import model_names

    return _starting(incomplete, model_names())


def keys(incomplete: str) -> list[tuple[str, str]]:
    """Keys of a scenario below the blocks typed so far, with their meaning; a block ends in a dot, a value in ``=``."""
    from moesim.mistakes import fields_at
    from moesim.scenario import Scenario

    *above, start = incomplete.split(".")
    offered = []
    for name, meaning in fields_at(Scenario, tuple(above)).items():
        if name.startswith(start):
            end = "." if fields_at(Scenario, (*above, name)) else "="
            offered.append((".".join((*above, name)) + end, meaning))
    return offered


def numbers(incomplete: str) -> list[tuple[str, str]]:
    """Numbers of a summary, with their meaning."""
    from moesim.results import SUMMARY

    return [(name, definition.text) for name, definition in SUMMARY.items() if name.startswith(incomplete)]


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
