"""Defaults that depend on other keys: the model preset's sizes and router, the kind's knobs, the recording.

Works on the plain data of a scenario before validation and leaves alone what it does not understand: the
validation that follows says what is wrong with it. An explicit null counts as not given.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from moesim.model import ModelSpec
from moesim.scenario.arrivals import Workload
from moesim.scenario.sections import KINDS, Model, Routing

MODEL_PRESET = "deepseek-v3"

_SOURCES = ("routing", "recording", "synthetic", "expert_ids", "counts")
_ROUTING = ("kind", "top_k", "groups", "top_groups", *KINDS["v1"])
_BLOCKS: dict[str, type[BaseModel]] = {"model": Model, "routing": Routing, "workload": Workload}
_SIZES = ("n_experts", "hidden", "expert_hidden", "n_shared", "layers")


def needs_preset(data: Mapping[str, Any]) -> bool:
    """Return whether the data leave anything to the model preset."""
    model, routing = data.get("model"), data.get("routing")
    return not all(name in _given(model) for name in _SIZES) or not all(name in _given(routing) for name in _ROUTING)


def preset_name(data: Mapping[str, Any]) -> str:
    """Return the name or path of the model preset."""
    name = _given(data.get("model")).get("preset", MODEL_PRESET)
    return name if isinstance(name, str) else MODEL_PRESET


def filled(data: Mapping[str, Any], preset: ModelSpec | None) -> dict[str, Any]:
    """Return the data with the defaults that depend on other keys written out.

    ``preset`` is None where nothing is left to it.
    """
    result = dict(data)
    for name, fill in (("model", _model), ("routing", _routing)):
        if isinstance(data.get(name), Mapping | None):
            result[name] = fill(_given(data.get(name)), preset)
    kind = result["routing"].get("kind") if isinstance(result["routing"], dict) else None
    if isinstance(data.get("workload"), Mapping | None):
        result["workload"] = _workload(_given(data.get("workload")), kind)
    routing, workload = result["routing"], result["workload"]
    if isinstance(routing, dict) and isinstance(workload, dict) and "bias" not in routing:
        routing["bias"] = "recorded" if kind == "v3" and workload.keys() & {"recording", "routing"} else "zero"
    for name, block in _BLOCKS.items():
        if isinstance(data.get(name), Mapping):  # an unknown key without a value is a mistake all the same
            result[name] |= dict.fromkeys(data[name].keys() - result[name].keys() - block.model_fields.keys())
    return result


def _given(block: Any) -> dict[str, Any]:
    """Return the keys of a block that hold a value."""
    if not isinstance(block, Mapping):
        return {}
    return {name: value for name, value in block.items() if value is not None}


def _model(model: dict[str, Any], preset: ModelSpec | None) -> dict[str, Any]:
    if preset is None:
        return {"preset": MODEL_PRESET} | model
    sizes = {name: getattr(preset, name) for name in _SIZES}
    # A width that does not follow from the others is the preset's only with the sizes that it goes with.
    if preset.shared_hidden != preset.n_shared * preset.expert_hidden and not model.keys() & {
        "n_shared",
        "expert_hidden",
    }:
        sizes["shared_hidden"] = preset.shared_hidden
    if preset.latent is not None and "hidden" not in model:
        sizes["latent"] = preset.latent
    return {"preset": MODEL_PRESET} | sizes | model


def _routing(routing: dict[str, Any], preset: ModelSpec | None) -> dict[str, Any]:
    if preset is None:
        return routing
    published = preset.router
    kind = routing.get("kind", published.kind)
    if not isinstance(kind, str) or kind not in KINDS:
        return {"top_k": published.top_k, "groups": 1, "top_groups": 1, **KINDS["v1"], **routing}
    defaults: dict[str, Any] = {"kind": kind, "top_k": published.top_k, "groups": 1, **KINDS[kind]}
    if kind == published.kind:
        defaults |= {name: value for name, value in published.simulated().items() if name in KINDS[kind]}
        defaults["groups"] = published.n_groups
    if routing.get("groups", defaults["groups"]) == 1:
        defaults["top_groups"] = 1
    elif kind == published.kind and published.n_groups > 1:
        defaults["top_groups"] = published.top_groups
    return defaults | routing


def _workload(workload: dict[str, Any], kind: Any) -> dict[str, Any]:
    if isinstance(kind, str) and kind in KINDS and not any(source in workload for source in _SOURCES):
        workload = {"recording": {"name": f"tiny-{kind}"}} | workload
    requests, drafts = workload.get("requests"), workload.get("draft_tokens", 0)
    if isinstance(drafts, int) and drafts > 0:
        workload = {"acceptance": 0.6} | workload
    if isinstance(requests, int) and isinstance(drafts, int):
        workload = {"tokens_per_rank": requests * (1 + drafts)} | workload
    return workload
