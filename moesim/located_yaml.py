"""YAML whose every value remembers its line, and pydantic errors that name those lines.

The reader takes YAML 1.2 with the core schema and nothing that a configuration does not need: no aliases,
anchors or tags (so no bombs and no code), no second document, no duplicate keys; size, depth and node count
are bounded while reading. Keys are text exactly as written (``no`` and ``1`` are names, not values).

A ``LocatedDocument`` is plain data plus a place for each value. Values that were set from elsewhere (an
``-o key=value`` override, the block of a variant) carry that place instead, so that ``validate`` blames the
right line for every mistake, all mistakes at once.

Not modelled: writing YAML back with its comments.
"""

import contextlib
import functools
import hashlib
import marshal
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from moesim.broken_files import content
from moesim.errors import InputError
from moesim.mistakes import Loc, dotted, input_error

_OWN = Path(__file__).resolve().parent
MAX_DEPTH = 64
# About a second of reading. A topology that lists its links may be as long as MANY_VALUES.
MAX_VALUES = 30_000
MANY_VALUES = 200_000
_BYTES_PER_VALUE = 30
_LONGEST_VALUE = 20_000

M = TypeVar("M", bound=BaseModel)

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_BETWEEN = re.compile(r"[,:\n\[{]")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, object] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"))
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False)
    | dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf"))
    | dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf"))
    | dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan"))
)


@dataclass(frozen=True)
class LocatedDocument:
    """Plain data (dict, list, str, int, float, bool, None) and where each value was written.

    ``places`` maps the path of a value to ``line:column`` of this file or, for a value set from elsewhere, to
    a complete description such as ``-o routing.top_k=x``. ``keys`` does the same for the keys of mappings.
    """

    data: Any
    path: str
    places: Mapping[Loc, str] = field(default_factory=dict, repr=False)
    keys: Mapping[Loc, str] = field(default_factory=dict, repr=False)

    def where(self, loc: Loc = (), key: bool = False) -> str:
        """Return ``file:line:column`` of the value (or key) at ``loc``, or of what encloses it."""
        loc = tuple(loc)
        if key and loc in self.keys:
            return self.keys[loc]
        while loc and loc not in self.places:
            loc = loc[:-1]
        return self.places.get(loc, self.path)

    def error(self, loc: Loc, what: str, fix: str = "", key: bool = False) -> InputError:
        """Return an ``InputError`` about the value at ``loc``."""
        return InputError(f"{dotted(loc)}: {what}" if loc else what, self.where(loc, key), fix)

    def get(self, loc: Loc) -> Any:
        """Return the value at ``loc``; raises KeyError, IndexError or TypeError where there is none."""
        value = self.data
        for step in loc:
            value = value[step]
        return value

    def with_value(self, loc: Loc, value: Any, origin: str) -> "LocatedDocument":
        """Return a copy in which ``loc`` holds ``value``, whose place is ``origin``.

        Missing mappings on the way are made. Raises InputError where ``loc`` runs through a value that has
        no keys, or is deeper than a file may be.
        """
        if len(loc) > MAX_DEPTH:
            raise InputError(f"{'.'.join(map(str, loc))!r:.60} is nested deeper than {MAX_DEPTH}", origin)
        data = _set(self.data, loc, value, origin)
        places = {at: place for at, place in self.places.items() if at[: len(loc)] != loc}
        keys = {at: place for at, place in self.keys.items() if at[: len(loc)] != loc}
        for length in range(1, len(loc)):
            places.setdefault(loc[:length], origin)
            keys.setdefault(loc[:length], origin)
        places[loc] = keys[loc] = origin
        return LocatedDocument(data, self.path, places, keys)

    def with_copy(self, target: Loc, other: "LocatedDocument", source: Loc) -> "LocatedDocument":
        """Return a copy in which ``target`` holds what stands at ``source`` of ``other``, places and all."""
        moved = self.with_value(target, other.get(source), other.where(source, key=True))
        places, keys = dict(moved.places), dict(moved.keys)
        for new, old in ((places, other.places), (keys, other.keys)):
            new.update({target + at[len(source) :]: p for at, p in old.items() if at[: len(source)] == source})
        return LocatedDocument(moved.data, self.path, places, keys)

    def without(self, *names: str) -> "LocatedDocument":
        """Return a copy that lacks these top-level keys."""
        data = {name: value for name, value in self.data.items() if name not in names}
        return LocatedDocument(data, self.path, self.places, self.keys)


def _set(data: Any, loc: Loc, value: Any, origin: str) -> Any:
    if not loc:
        return value
    step, rest = loc[0], loc[1:]
    if isinstance(data, list):
        if isinstance(step, str) and re.fullmatch("[0-9]{1,9}", step):
            step = int(step)
        if not isinstance(step, int) or step >= len(data):
            raise InputError(f"no entry {step!r} in a list of {len(data)}", origin)
        return [_set(item, rest, value, origin) if i == step else item for i, item in enumerate(data)]
    if data is not None and not isinstance(data, dict):
        raise InputError(f"{step!r} cannot be set below the value {data!r:.60}", origin)
    below = dict(data or {})
    below[step] = _set(below.get(step), rest, value, origin)
    return below


def load_yaml(path: str | Path, most_values: int = MAX_VALUES) -> LocatedDocument:
    """Read a YAML file.

    Raises:
        InputError: the file is missing, not a file, or refused by ``parse_yaml``.
    """
    name = str(path)
    if "\0" in name:
        raise InputError("a path cannot hold a NUL character", repr(name))
    read = content(path, most_values * _BYTES_PER_VALUE)
    return _kept(read, name) if _OWN in Path(path).resolve().parents else parse_yaml(read, name, most_values)


def _kept(text: bytes, name: str) -> LocatedDocument:
    """Parse one of moesim's own files, or take it as it was parsed before, kept where Python keeps its bytecode."""
    about = hashlib.sha256(f"{sys.implementation.cache_tag} {os.stat(__file__).st_mtime_ns} {name}\n".encode() + text)
    kept = Path(__file__).parent / "__pycache__" / f"{Path(name).name}-{about.hexdigest()[:24]}.parsed"
    with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
        return LocatedDocument(*marshal.loads(kept.read_bytes()))  # noqa: S302 - as trusted as the bytecode beside it
    document = parse_yaml(text, name, MANY_VALUES)
    if not sys.dont_write_bytecode:
        with contextlib.suppress(OSError):
            half = kept.with_suffix(f".{os.getpid()}")
            half.write_bytes(marshal.dumps((document.data, name, dict(document.places), dict(document.keys))))
            half.replace(kept)
    return document


@functools.lru_cache(maxsize=16)
def parse_yaml(text: str | bytes, name: str = "<text>", most_values: int = MAX_VALUES) -> LocatedDocument:
    """Read YAML text; ``name`` is the file's name in error messages. Text read
    before is not read again, so nobody changes what comes back.

    Raises:
        InputError: not UTF-8, a byte order mark or NUL, empty, more than ``most_values``, a value of more than 20,000
            characters, nested deeper than 64, an alias, anchor, tag or second document, a duplicate key, or not
            YAML 1.2.
    """
    if isinstance(text, bytes):
        text = _decoded(text, name)
    _refuse_long(text, name, most_values)
    if "\0" in text:
        raise InputError("holds a NUL character", name, "is it a text file?")
    if not text.strip():
        raise InputError("is empty", name)
    places: dict[Loc, str] = {}
    keys: dict[Loc, str] = {}
    try:
        data = _built(YAML(typ="safe", pure=True).parse(text), name, places, keys, most_values)
    except InputError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
        context = f" {error.context}" if error.context else ""
        raise InputError(f"not valid YAML: {error.problem or 'unreadable'}{context}", where) from None
    except (
        YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # the reader's own, and chr() of impossible escapes
        raise InputError(f"not valid YAML: {' '.join(str(error).split())}", name) from None
    return LocatedDocument(data, name, places, keys)


def _refuse_long(text: str, name: str, most: int) -> None:
    """Refuse what would take long to parse, by what stands between values: two for each, and comments may have some."""
    pieces = _BETWEEN.split(text)
    if len(pieces) > 4 * most or len(text) > most * _BYTES_PER_VALUE:
        raise InputError(f"more than {most:,} values", name, "is it the right file?")
    if len(longest := max(pieces, key=len)) > _LONGEST_VALUE:
        place = f"{name}:{text.count(chr(10), 0, text.find(longest)) + 1}"
        raise InputError(f"a value of more than {_LONGEST_VALUE:,} characters", place)


def _decoded(raw: bytes, name: str) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("is UTF-16 text", name, "save it as UTF-8")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise InputError("starts with a byte order mark", name, "save it as UTF-8 without BOM")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"byte {error.start} (line {line}) is not UTF-8 text", name, "save it as UTF-8") from None


@dataclass
class _Open:
    """A mapping or sequence being read: its place, what it holds so far, the key at hand."""

    loc: Loc
    value: dict[str, Any] | list[Any]
    key: str | None = None


def _built(events: Iterator[Event], name: str, places: dict[Loc, str], keys: dict[Loc, str], most_values: int) -> Any:
    """Build the data from parser events without recursion: depth and node count are refused while reading."""
    stack: list[_Open] = []
    root: list[Any] = []
    nodes = documents = 0
    for event in events:
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise InputError("a second YAML document", _at(name, event), "one document per file")
            if event.version not in (None, (1, 2)) or event.tags:
                raise InputError("a YAML directive", _at(name, event), "moesim reads plain YAML 1.2: drop it")
        elif isinstance(event, AliasEvent):
            raise InputError(f"an alias (*{event.anchor})", _at(name, event), "write the value out")
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            stack.pop()
        elif isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent):
            nodes += 1
            place = _at(name, event)
            if nodes > most_values:
                raise InputError(f"more than {most_values:,} values", place)
            _refuse_anchor_and_tag(event, place)
            parent = stack[-1] if stack else None
            if parent is not None and isinstance(parent.value, dict) and parent.key is None:
                parent.key = _read_key(event, parent, place)
                keys[(*parent.loc, parent.key)] = place
                continue
            value, loc = _attach(event, parent, root)
            empty = isinstance(event, ScalarEvent) and not event.value and event.implicit[0]
            places[loc] = keys.get(loc, place) if empty else place  # nothing stands at the start of what follows
            if not isinstance(event, ScalarEvent):
                if len(stack) >= MAX_DEPTH:
                    raise InputError(f"nested deeper than {MAX_DEPTH}", place)
                stack.append(_Open(loc, value))
    if not root:
        raise InputError("is empty", name)
    return root[0]


def _at(name: str, event: Event) -> str:
    return f"{name}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"


def _refuse_anchor_and_tag(event: Any, place: str) -> None:
    if event.anchor is not None:
        raise InputError(f"an anchor (&{event.anchor})", place, "write the value out where it is needed")
    if event.tag is not None:
        raise InputError(f"a tag ({event.tag})", place, "drop it: values need no tag")


def _read_key(event: Event, parent: _Open, place: str) -> str:
    if not isinstance(event, ScalarEvent):
        raise InputError("a key that is not plain text", place)
    if event.value in parent.value:
        raise InputError(f"key {event.value!r:.60} appears twice in this block", place, "keep one of them")
    return str(event.value)


def _attach(event: Event, parent: _Open | None, root: list[Any]) -> tuple[Any, Loc]:
    """Put the value that this event begins into its parent; return it and its path."""
    value: Any
    if isinstance(event, ScalarEvent):
        value = _scalar(event)
    elif isinstance(event, MappingStartEvent):
        value = {}
    else:
        value = []
    if parent is None:
        root.append(value)
        return value, ()
    if isinstance(parent.value, list):
        parent.value.append(value)
        return value, (*parent.loc, len(parent.value) - 1)
    key, parent.key = parent.key, None
    if key is None:  # pragma: no cover - the caller reads the key first
        raise AssertionError("a value without its key")
    parent.value[key] = value
    return value, (*parent.loc, key)


def _scalar(event: ScalarEvent) -> object:
    """Resolve a scalar by the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#1032-tag-resolution)."""
    text = str(event.value)
    if not event.implicit[0]:  # quoted or block text
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 400:
        return text
    if _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def validate(
    model: type[M],
    document: LocatedDocument,
    data: Any = None,
    at: Loc = (),
    context: Mapping[str, Any] | None = None,
) -> M:
    """Build ``model`` from the document's data (or from ``data``, which stands at the path ``at``).

    ``context`` is handed to the model's validators.

    Raises:
        InputError: every mistake with its place, what is wrong and what would be right; the first carries the
            others.
    """
    if data is None:
        data = document.get(at)
    if data is None:
        data = {}
    try:
        return model.model_validate(data, context=None if context is None else dict(context))
    except ValidationError as error:
        raise input_error(error, model, document.error, data, at) from None
