"""pydantic's errors in plain words: the place in the file, what is wrong, what would be right.

Each field is blamed once, in moesim's words, with the value that was given, a suggestion for a misspelt key
or name (over the keys allowed there), and the places that the document knows.
"""

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from moesim.errors import InputError

Loc = tuple[str | int, ...]
_MOST_MISTAKES = 200


class Blame(Protocol):
    """Makes the error about what stands at a place: ``LocatedDocument.error``."""

    def __call__(self, loc: Loc, what: str, fix: str = "", key: bool = False) -> InputError:
        """Return it; ``key``: the key is to blame, not its value."""


class Mistakes(ValueError):
    """What a model validator raises to blame fields below it: (place below the model, what, fix) each."""

    def __init__(self, *mistakes: tuple[Loc, str, str]) -> None:
        self.mistakes = mistakes
        super().__init__("; ".join(f"{dotted(at)}: {what}" for at, what, _ in mistakes))


def dotted(loc: Loc) -> str:
    """Write a path as people do: ``routing.top_k``, ``faults[0].rank``."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def did_you_mean(given: object, known: Sequence[str], noun: str = "known") -> str:
    """Return ``did you mean 'x'?`` for a near miss among ``known``, else the list of them."""
    near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"{noun}: {', '.join(known)}" if known else ""


def input_error(error: ValidationError, model: type[BaseModel], blame: Blame, data: Any, at: Loc) -> InputError:
    """Turn the errors of building ``model`` from ``data`` (found at ``at``) into one InputError.

    The first mistake in the order of the file carries the others.
    """
    found: dict[tuple[Loc, str], InputError] = {}
    details = error.errors(include_url=False)
    real = [_real_loc(detail["loc"], data, detail["type"]) for detail in details]
    if len(details) > _MOST_MISTAKES:  # each is worded with care, which takes its time
        by_line = sorted(range(len(details)), key=lambda i: _line_and_column(blame(at + real[i], "", key=True).where))
        details = [details[i] for i in by_line[:_MOST_MISTAKES]]
        real = [real[i] for i in by_line[:_MOST_MISTAKES]]
    for detail, loc in zip(details, real, strict=True):
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, Mistakes):
            for below, what, fix in cause.mistakes:
                found[(loc + below, what)] = blame(at + loc + below, what, fix)
            continue
        if any(len(other) > len(loc) and other[: len(loc)] == loc and _in_union(detail, loc) for other in real):
            continue  # the branch of a union that the writer did not mean
        what, fix = _wording(detail, loc, model)
        found[(loc, what)] = blame(at + loc, what, fix, key=detail["type"] in ("extra_forbidden", "missing"))
    ordered = sorted(found.values(), key=lambda mistake: _line_and_column(mistake.where))
    first, *others = _one_per_place(ordered)
    return InputError(first.what, first.where, first.fix, tuple(others))


def _in_union(detail: Any, loc: Loc) -> bool:
    return len(detail["loc"]) > len(loc)


def _one_per_place(mistakes: list[InputError]) -> list[InputError]:
    """Join what the branches of a union say about one value into one line."""
    joined: dict[tuple[str, str], list[InputError]] = {}
    for mistake in mistakes:
        joined.setdefault((mistake.where, mistake.what.split(":")[0]), []).append(mistake)
    result = []
    for group in joined.values():
        head = group[0]
        for other in group[1:]:
            head = InputError(f"{head.what}, or {other.what.split(': ', 1)[-1]}", head.where, head.fix or other.fix)
        result.append(head)
    return result


def _line_and_column(where: str) -> tuple[int, int, str]:
    match = re.search(r":([0-9]+):([0-9]+)$", where)
    return (int(match[1]), int(match[2]), "") if match else (0, 0, where)


def _real_loc(loc: tuple[int | str, ...], data: Any, kind: str) -> Loc:
    """Drop from a pydantic path what is not in the data: the names of union branches and ``[key]``."""
    path: Loc = ()
    for i, step in enumerate(loc):
        if isinstance(data, dict) and step in data:
            data = data[str(step)]
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        elif not (kind == "missing" and i == len(loc) - 1):
            continue
        path = (*path, step)
    return path


def _wording(detail: Any, loc: Loc, model: type[BaseModel]) -> tuple[str, str]:
    """Say in moesim's words what pydantic found."""
    kind, context, given = detail["type"], detail.get("ctx", {}), detail["input"]
    cause = context.get("error")
    if isinstance(cause, InputError):
        return cause.what, cause.fix
    if kind == "extra_forbidden":
        known = sorted(fields_at(model, loc[:-1], tags=detail["loc"]))
        return f"unknown key {str(loc[-1])!r:.60}", did_you_mean(loc[-1], known, "keys known here")
    if kind == "missing":
        description = fields_at(model, loc[:-1], tags=detail["loc"]).get(str(loc[-1]), "").rstrip(".")
        return (
            "this key is required",
            f"add it ({description[:1].lower()}{description[1:]})" if description else "",
        )
    shown = f"got {_shown(given)}"
    if kind in ("literal_error", "enum", "union_tag_invalid"):
        expected = str(context.get("expected") or context.get("expected_tags"))
        names = re.findall(r"'([^']*)'", expected)
        tag = context.get("tag")
        shown = f"got {tag!r}" if tag is not None else shown
        suggestion = did_you_mean(tag if tag is not None else given, names) if names else ""
        return f"expected one of {', '.join(names) or expected}, {shown}", suggestion * ("mean" in suggestion)
    if kind == "union_tag_not_found":
        return f"the key {context['discriminator']} is required here", ""
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, {shown}", ""
    if kind in _BOUNDS:
        bound, sign = _BOUNDS[kind]
        return f"must be {sign} {context[bound]}, {shown}", ""
    if kind in _LENGTHS:
        bound, noun = _LENGTHS[kind]
        return f"must have {'at least' if 'min' in bound else 'at most'} {context[bound]} {noun}, {shown}", ""
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}, {shown}", ""
    if isinstance(cause, Exception):
        return str(cause), ""
    return f"{detail['msg']} ({shown})", ""


_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_LENGTHS = {
    "too_long": ("max_length", "entries"),
    "too_short": ("min_length", "entries"),
    "string_too_long": ("max_length", "characters"),
    "string_too_short": ("min_length", "characters"),
}
_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "finite_number": "a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    **dict.fromkeys(("list_type", "tuple_type", "iterable_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "mapping_type"), "a block of keys"),
}


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "a block of keys"
    return "nothing" if value is None else f"{value!r:.60}"


def fields_at(model: type[BaseModel], loc: Loc, tags: Loc = ()) -> dict[str, str]:
    """Return the field names (with their descriptions) of the models allowed at ``loc``.

    Where several may, ``tags`` (a pydantic path, which names the branches of unions) picks among them.
    """
    candidates: list[Any] = [model]
    for step in loc:
        below: list[Any] = []
        for candidate in candidates:
            below += _step(candidate, step)
        candidates = below
    models = [each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)]
    meant = [each for each in models if _literals(each) & set(tags)] if len(models) > 1 else []
    fields: dict[str, str] = {}
    for each in meant or models:
        fields |= {info.alias or name: info.description or "" for name, info in each.model_fields.items()}
    return fields


def _literals(model: type[BaseModel]) -> set[str | int]:
    """Return the values that a model's literal fields may take: among them the tag of its union."""
    annotations = [info.annotation for info in model.model_fields.values()]
    return {value for each in annotations if get_origin(each) is Literal for value in get_args(each)}


def _step(annotation: Any, step: str | int) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        info = annotation.model_fields.get(str(step))
        return _branches(info.annotation) if info is not None else []
    origin = get_origin(annotation)
    arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    if isinstance(step, int) or origin in (dict, Mapping):
        return _branches(arguments[-1]) if arguments else []
    return []


def _branches(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _branches(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [branch for argument in get_args(annotation) for branch in _branches(argument)]
    return [annotation]
