"""A scenario from four facts typed on the command line: a topology, a model, expert counts, how many of each.

For users with a cluster and a log of expert loads but no scenario file yet: everything else is the default.
Counts hold no groups, so the router's limit on them is left out; the result says so.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.errors import InputError
from moesim.model import load_model
from moesim.scenario import is_path, name_from
from moesim.scenario.defaults import MODEL_PRESET

_EXAMPLE = "moesim run --topology h800-8x8-rail --model config.json --load counts.csv"


@dataclass(frozen=True)
class Facts:
    """What the command line gives instead of a scenario; None where it was not given.

    Attributes:
        topology: bare name or path.
        model: preset, or path of a Hugging Face ``config.json``.
        load: recorded routing or expert counts per layer, in any form that ``workload.routing`` takes.
        tokens_per_rank: tokens that start on each rank.
        ep: ranks that the experts are spread over.
    """

    topology: str | None = None
    model: str | None = None
    load: Path | None = None
    tokens_per_rank: int | None = None
    ep: int | None = None

    def given(self) -> list[str]:
        """Return the options that were given, as they are typed."""
        return ["--" + name.replace("_", "-") for name, value in vars(self).items() if value is not None]


def scenario_or_facts(scenario: str | None, facts: Facts) -> str | dict[str, Any]:
    """Return what ``load_scenario`` takes: the scenario that was named, or one made from the facts.

    Raises:
        InputError: neither, both, or too few facts.
    """
    given = facts.given()
    if scenario is not None:
        if given:
            verb = "goes" if len(given) == 1 else "go"
            raise InputError(
                f"{', '.join(given)} {verb} without a scenario, and {scenario!r:.60} is one",
                fix="change a scenario with -o, as in -o cluster.topology=h800-8x8-rail",
            )
        return scenario
    if not given:
        raise InputError("no scenario", fix=f"name one, or: {_EXAMPLE}; see moesim --help")
    if facts.topology is None:
        raise InputError(f"{given[0]} without --topology", fix=f"name a cluster or a scenario: {_EXAMPLE}")
    if facts.load is None:
        raise InputError(
            f"{given[0]} without --load: there are no tokens to send",
            fix="give recorded routing or counts (layer,expert,count) with --load, or a scenario with a workload",
        )
    return _mapping(facts.topology, facts.model or MODEL_PRESET, facts.load, facts)


def _mapping(topology: str, model: str, load: Path, facts: Facts) -> dict[str, Any]:
    # An array without a name could be anything; here it is counts. Every other file says what it holds.
    workload: dict[str, Any] = {"counts" if load.suffix == ".npy" else "routing": os.path.realpath(load)}
    if facts.tokens_per_rank is not None:
        workload["tokens_per_rank"] = facts.tokens_per_rank
    scenario: dict[str, Any] = {
        "name": name_from(f"{_name_of_model(model)}-on-{Path(topology).stem if is_path(topology) else topology}"),
        "cluster": {"topology": _from_here(topology)},
        "model": {"preset": _from_here(model)},
        "routing": {"groups": 1},
        "workload": workload,
    }
    if facts.ep is not None:
        scenario["parallel"] = {"ep": facts.ep}
    return scenario


def _from_here(value: str) -> str:
    """Return a path as an absolute one, so that the scenario in the run's folder loads from anywhere."""
    return os.path.realpath(value) if is_path(value) else value


def _name_of_model(model: str) -> str:
    """Return the preset's name; a file's ``model_type``, since the file itself is mostly called config.json."""
    return load_model(model).title if is_path(model) else model
