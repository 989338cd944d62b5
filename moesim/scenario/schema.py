"""The scenario: one frozen value that says everything a run depends on.

A ``Scenario`` is fully resolved: every default is written out, the model preset's sizes and router included.
``resolved()`` gives it back as plain data that loads to the same scenario; ``digest()`` identifies it.
"""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationInfo, model_validator
from ruamel.yaml import YAML

from moesim.errors import InputError
from moesim.located_yaml import LocatedDocument
from moesim.mistakes import Loc, Mistakes, dotted
from moesim.model import ModelSpec, load_model, model_names, with_attention
from moesim.scenario.breaches import breaches
from moesim.scenario.defaults import MODEL_PRESET, filled, needs_preset, preset_name
from moesim.scenario.fields import ScenarioFields
from moesim.scenario.named_files import contained, is_path, refuse_escape
from moesim.scenario.thresholds import Threshold, parse_threshold

# Keys of the model block that change its attention.
_ATTENTION = ("attention", "heads", "kv_heads", "kv_lora_rank")


class Scenario(ScenarioFields):
    """Everything a run depends on. ``load_scenario`` makes one from a file."""

    _base_dir: Path = PrivateAttr(default_factory=Path.cwd)
    _variants: dict[str, "Scenario"] = PrivateAttr(default_factory=dict)
    _document: LocatedDocument | None = PrivateAttr(None)  # what it was read from, overrides in place
    _template: Any = PrivateAttr(None)  # the ScenarioTemplate that load_scenario made it from

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any, info: ValidationInfo) -> Any:
        """Write out the defaults that depend on other keys."""
        if not isinstance(data, dict):
            return data
        if not needs_preset(data):
            return filled(data, None)
        name = preset_name(data)
        if not is_path(name):
            known = name in model_names()
            preset = load_model(name if known else MODEL_PRESET)  # the field's own check refuses it
        else:
            try:
                preset = _load_preset(name, (info.context or {}).get("base_dir", Path.cwd()))
            except InputError as error:
                where = f" ({error.where})" if error.where else ""
                raise Mistakes((("model", "preset"), error.what + where, error.fix)) from None
        try:
            _with_asked_attention(preset, data.get("model"))
        except InputError as error:
            raise Mistakes((tuple(error.where.split(".")), error.what, error.fix)) from None
        return filled(data, preset)

    @model_validator(mode="after")
    def _check(self) -> "Scenario":
        found = list(breaches(self))
        if found:
            raise Mistakes(*found)
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self.resolved() == other.resolved()

    def __hash__(self) -> int:
        return hash(self.digest())

    @property
    def base_dir(self) -> Path:
        """The folder that relative paths of the scenario start from."""
        return self._base_dir

    def source(self, name_or_path: str) -> str:
        """Return a name of the scenario as it is, a path as an absolute one inside ``base_dir``.

        Raises:
            InputError: the path leads out of the scenario's folder, or there is no such file.
        """
        return str(contained(name_or_path, self._base_dir)) if is_path(name_or_path) else name_or_path

    def routing_path(self) -> str:
        """Return the file or folder of recorded routing as an absolute path.

        Raises:
            InputError: the path leads out of the scenario's folder, or there is nothing.
        """
        source = self.workload.routing
        assert source is not None  # noqa: S101 - whoever asks has looked
        return str(contained(source.file, self._base_dir, folder=True))

    def error(self, loc: Loc, what: str, fix: str = "") -> InputError:
        """Return an error about the value at ``loc``, with file, line and column where it was read from one."""
        if self._document is None:
            return InputError(what, dotted(loc), fix)
        return self._document.error(loc, what, fix)

    def located(self, error: InputError) -> InputError:
        """Return an error about a key of this scenario (``workload.steps``) with its place in the file."""
        loc = tuple(error.where.split("."))
        return self.error(loc, error.what, error.fix) if loc[0] in type(self).model_fields else error

    def model_spec(self) -> ModelSpec:
        """Return the preset with the sizes and the top_k of this scenario.

        Raises:
            InputError: the preset is a file that is no longer there, or its attention has no such form.
        """
        preset = _load_preset(self.model.preset, self._base_dir)
        model = self.model.model_dump(exclude={"preset"})
        sizes = {name: value for name, value in model.items() if name not in _ATTENTION}
        sizes["shared_hidden"] = self.model.shared_width
        spec = preset.resized(**sizes, router=dataclasses.replace(preset.router, top_k=self.routing.top_k))
        return _with_asked_attention(spec, model)

    def model_notes(self) -> tuple[str, ...]:
        """Return what the preset's config.json does not say and moesim assumed; nothing for a preset by name."""
        if not is_path(self.model.preset):
            return ()
        try:
            return _load_preset(self.model.preset, self._base_dir).uncertain
        except InputError:  # a resolved scenario runs without the file
            return ()

    def limits(self) -> tuple[Threshold, ...]:
        """Return the thresholds, parsed."""
        return tuple(parse_threshold(text) for text in self.thresholds)

    @property
    def objective(self) -> str:
        """What a sweep of it is to be best at, as its sweep section says or by what it simulates."""
        said = self.sweep.objective if self.sweep else None
        return said or ("max tokens_per_second_per_gpu" if self.workload.of_step else "layer_time_s")

    def variant_scenarios(self) -> "dict[str, Scenario]":
        """Return one whole scenario per variant, in the order of the file; its name is ``NAME/VARIANT``."""
        return dict(self._variants)

    def resolved(self) -> dict[str, Any]:
        """Return plain data (units as text, null left out) that loads to the same scenario."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)

    def digest(self) -> str:
        """Return the SHA-256 of the resolved scenario as canonical JSON."""
        text = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _with_asked_attention(spec: ModelSpec, model: Any) -> ModelSpec:
    """The model with the attention that its block asks for; what is of another type is refused elsewhere."""
    given = model if isinstance(model, dict) else {}
    sizes = {name: value for name in _ATTENTION[1:] if isinstance(value := given.get(name), int) and value > 0}
    kind = given.get(_ATTENTION[0])
    return with_attention(spec, kind if isinstance(kind, str) else None, **sizes) if kind or sizes else spec


def _load_preset(name: str, base_dir: Path) -> ModelSpec:
    refuse_escape(name)
    return load_model(str(contained(name, base_dir)) if is_path(name) else name)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a scenario file, for editors."""
    schema = Scenario.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "moesim scenario"} | {
        key: value for key, value in schema.items() if key != "title"
    }


def to_yaml(scenario: Scenario) -> str:
    """Return the scenario with every default written out, in the order of the schema."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 110
    text = io.StringIO()
    yaml.dump(scenario.resolved(), text)
    return text.getvalue()
