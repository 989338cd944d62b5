"""From a file (or a mapping) and overrides to a ``Scenario`` and its variants, with every mistake located.

Order: the file, then (per variant) the variant's keys, then the overrides. An override holds in every
variant, so that what was typed on the command line is never silently undone.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.errors import InputError
from moesim.located_yaml import LocatedDocument, load_yaml, validate
from moesim.mistakes import Loc, did_you_mean
from moesim.regular_clusters import EXAMPLES, RegularCluster
from moesim.scenario.axes import Override, parse_override
from moesim.scenario.fields import VARIANT_NAME
from moesim.scenario.named_files import contained, is_path, shipped_names, shipped_scenario
from moesim.scenario.schema import Scenario

PATH_FIELDS: tuple[tuple[str, ...], ...] = (
    ("cluster", "topology"),
    ("model", "preset"),
    ("routing", "bias"),
    ("workload", "recording", "name"),
    ("parallel", "group_placement"),
    ("placement", "file"),
    ("placement", "learn_from"),
    ("workload", "routing"),
    ("workload", "routing", "file"),
    ("workload", "expert_ids"),
    ("workload", "counts"),
    ("compute", "table"),
    ("alltoall", "calibration"),
)
_NOT_IN_VARIANTS = ("variants", "sweep")
_ROUTING = ("workload", "routing")  # always a path, perhaps of a folder


def load_scenario(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Scenario:
    """Load and resolve a scenario with all its variants.

    Args:
        source: a path, the bare name of one of moesim's own scenarios, or plain data as of ``resolved()``.
        overrides: ``key.key=value`` texts, values as in YAML; relative paths in them start from the current
            folder.

    Raises:
        InputError: no such scenario, or everything that is wrong in it, each with file, line and column.
    """
    document, base_dir = _read(source)
    everywhere: list[Override] = []
    for override in (from_here(parse_override(text)) for text in overrides):
        if override.loc[0] in _NOT_IN_VARIANTS:
            document = document.with_value(override.loc, override.value, override.origin)
        else:
            everywhere.append(override)
    mistakes: list[InputError] = []
    main = _one(document, everywhere, base_dir, mistakes)
    variants: dict[str, Scenario] = {}
    for name, variant in _variant_documents(document, mistakes):
        scenario = _one(variant, everywhere, base_dir, mistakes)
        if scenario is not None:
            variants[name] = scenario
    if main is None or mistakes:
        raise _refusal(mistakes)
    named = _with_variants(main, variants)
    named._template = ScenarioTemplate(document.without(*_NOT_IN_VARIANTS), tuple(everywhere), base_dir)
    return named


@dataclass(frozen=True)
class ScenarioTemplate:
    """What the points of a sweep have in common: a scenario as it was written, before any default is filled.

    A default may depend on the very key that a sweep sets (the router's knobs on its kind), so that points are made
    from here and not from a resolved scenario.
    """

    document: LocatedDocument
    overrides: tuple[Override, ...]
    base_dir: Path

    @classmethod
    def of(cls, scenario: Scenario) -> "ScenarioTemplate":
        """Return what a scenario was loaded from; one built by hand stands for itself, all defaults filled."""
        if isinstance(scenario._template, cls):
            return scenario._template
        whole = LocatedDocument(scenario.resolved(), "scenario").without(*_NOT_IN_VARIANTS)
        return cls(whole, (), scenario.base_dir)

    def scenario(self, values: Mapping[str, Any]) -> Scenario:
        """Return the scenario with these values (dotted key: value) set; without sweep and variants.

        Raises:
            InputError: everything that is wrong with it.
        """
        mistakes: list[InputError] = []
        # Without a place: whoever set the values says where they come from.
        set_here = [Override(tuple(key.split(".")), value, "") for key, value in values.items()]
        scenario = _one(self.document, [*self.overrides, *set_here], self.base_dir, mistakes)
        if scenario is None or mistakes:
            raise _refusal(mistakes)
        return scenario

    def written(self) -> dict[str, Any]:
        """Return the plain data with the overrides in place."""
        document = self.document
        for override in self.overrides:
            document = document.with_value(override.loc, override.value, override.origin)
        return dict(document.data)


def _refusal(mistakes: Iterable[InputError]) -> InputError:
    """All mistakes in one, flat and without what a variant repeats of its base."""
    flat = [single for mistake in mistakes for single in (mistake, *mistake.others)]
    first, *others = {single.line(): InputError(single.what, single.where, single.fix) for single in flat}.values()
    return InputError(first.what, first.where, first.fix, tuple(others))


def _read(source: str | Path | Mapping[str, Any]) -> tuple[LocatedDocument, Path]:
    if isinstance(source, Mapping):
        return LocatedDocument(dict(source), "scenario"), Path.cwd()
    path = Path(source)
    if not path.is_file() and not is_path(str(source)):
        shipped = shipped_scenario(str(source))
        if shipped is None:
            if str(source) in [*shipped_names("topologies"), *_regular(str(source))]:
                raise InputError(f"{source} is a topology, not a scenario", fix=_with_topology(source))
            fix = did_you_mean(source, shipped_names("scenarios"), "a path, or one of")
            raise InputError(f"no scenario {str(source)!r:.100}", fix=fix)
        path = shipped
    document = load_yaml(path)
    if not isinstance(document.data, dict):
        raise document.error((), "expected a block of keys, such as cluster and routing")
    if {"kind", "gpu"} <= document.data.keys():
        raise document.error((), "this is a topology, not a scenario", _with_topology(path))
    if document.data.get("name") is None:
        document = document.with_value(("name",), name_from(path.stem), str(path))
    return document, path.parent


def _with_topology(topology: str | Path | Mapping[str, Any]) -> str:
    return f"give --topology {topology} and --load, or a scenario (quickstart) and -o cluster.topology={topology}"


def name_from(text: str) -> str:
    """Return a scenario's name made from a file's: every character that a name cannot hold replaced."""
    name = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.+-") else "-" for letter in text)
    return name.lstrip("-_.+")[:100] or "scenario"


def from_here(override: Override) -> Override:
    """Make a relative path of an override absolute: it was typed in the current folder."""
    value = override.value
    if override.loc not in PATH_FIELDS or not isinstance(value, str):
        return override
    if not is_path(value) and override.loc[:2] != _ROUTING:
        return override
    if "\0" in value or value.startswith("~"):  # refused with its place by the validation
        return override
    return Override(override.loc, os.path.realpath(value), override.origin)


def _one(
    document: LocatedDocument, overrides: Sequence[Override], base_dir: Path, mistakes: list[InputError]
) -> Scenario | None:
    """Validate one scenario without its variants; add what is wrong to ``mistakes``."""
    try:
        for override in overrides:
            document = document.with_value(override.loc, override.value, override.origin)
            if override.loc[:2] == _ROUTING and override.value is not None:
                document = _without_other_sources(document, overrides)
        document = document.without("variants")
        scenario = validate(Scenario, document, context={"base_dir": base_dir})
        scenario._base_dir, scenario._document = base_dir, document
        missing = list(_missing_files(scenario, document))
    except InputError as error:
        mistakes.append(error)
        return None
    mistakes.extend(missing)
    return scenario


def _without_other_sources(document: LocatedDocument, overrides: Sequence[Override]) -> LocatedDocument:
    """Let routing that is named on the command line take the place of the file's tokens, whatever those are."""
    workload, named = document.data.get("workload"), {override.loc[:2] for override in overrides}
    for source in ("recording", "synthetic", "expert_ids", "counts"):
        if isinstance(workload, Mapping) and source in workload and ("workload", source) not in named:
            document = document.with_value(("workload", source), None, "")
    return document


def named_files(scenario: Scenario) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield which of ``PATH_FIELDS`` hold a name or a path, and what it is."""
    for loc in PATH_FIELDS:
        value: Any = scenario
        for name in loc:
            value = getattr(value, name, None)
        if isinstance(value, str):
            yield loc, value


def _missing_files(scenario: Scenario, document: LocatedDocument) -> Iterable[InputError]:
    """Yield an error for every file that the scenario names and that is not there."""
    for loc, value in named_files(scenario):
        try:
            if loc[:2] == _ROUTING:
                contained(value, scenario.base_dir, folder=True)
            elif is_path(value):
                contained(value, scenario.base_dir)
            else:
                _refuse_unknown_name(loc, value)
        except InputError as error:
            yield document.error(loc, error.what, error.fix)


def _refuse_unknown_name(loc: Loc, value: str) -> None:
    if loc == ("cluster", "topology"):
        known, noun = [*shipped_names("topologies"), *_regular(value)], "topology"
    elif loc == ("workload", "recording", "name"):
        known, noun = shipped_names("recordings"), "recording"
    elif loc == ("routing", "bias"):
        known, noun = ["recorded", "zero"], "bias"
    elif loc == ("alltoall", "calibration"):
        known, noun = ["auto", *shipped_names("calibration")], "calibration"
    else:
        return
    if known and value not in known:
        others = (
            f"a path, a regular cluster such as {EXAMPLES}, or one of" if noun == "topology" else "a path, or one of"
        )
        raise InputError(f"no {noun} {value!r:.60}", fix=did_you_mean(value, known, others))


def _regular(value: str) -> list[str]:
    """Return the name if it is that of a regular cluster."""
    return [] if RegularCluster.read(value) is None else [value]


def _variant_documents(document: LocatedDocument, mistakes: list[InputError]) -> Iterable[tuple[str, LocatedDocument]]:
    """Yield name and whole document of each variant; what is not a variant is a mistake."""
    variants = document.data.get("variants")
    if variants is None:
        return
    if not isinstance(variants, Mapping):
        mistakes.append(document.error(("variants",), "expected a block of named variants"))
        return
    base = document.data.get("name")
    for name, block in variants.items():
        at: Loc = ("variants", name)
        if not re.fullmatch(VARIANT_NAME, str(name)):
            what = f"{name!r:.80} cannot name a variant"
            mistakes.append(document.error(at, what, "letters, digits and _ . + = -, 63 at most", key=True))
            continue
        if not isinstance(block, Mapping):
            mistakes.append(document.error(at, "expected a block of keys", "such as {routing.top_k: 6}"))
            continue
        variant = document.without(*_NOT_IN_VARIANTS).with_value(
            ("name",), f"{base}/{name}", document.where(at, key=True)
        )
        try:
            for key in sorted(block, key=lambda key: str(key).count(".")):  # whole blocks first, then single values
                target = tuple(str(key).split("."))
                if target[0] in _NOT_IN_VARIANTS:
                    raise document.error((*at, key), "a variant cannot hold this", key=True)
                variant = variant.with_copy(target, document, (*at, key))
        except InputError as error:
            mistakes.append(error)
            continue
        yield name, variant


def _with_variants(main: Scenario, variants: Mapping[str, Scenario]) -> Scenario:
    """Return the scenario with its variants resolved: every section that differs from the base, whole."""
    base = main.resolved()
    blocks = {}
    for name, variant in variants.items():
        whole = variant.resolved()
        blocks[name] = {
            section: value
            for section, value in whole.items()
            if section not in ("name", "variants") and value != base.get(section)
        }
    named = Scenario.model_validate({**base, "variants": blocks}, context={"base_dir": main.base_dir})
    named._base_dir, named._document = main.base_dir, main._document
    named._variants = dict(variants)
    return named
