"""The text of a topology file: read within limits, freed of what surrounds it, recognised; NCCL's XML as a tree."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, fromstring

from moesim.broken_files import content, reading
from moesim.errors import InputError

MAX_BYTES = 20 * 10**6
MAX_DEVICES = 20_000
MAX_ELEMENTS = 100_000

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PREFIX = re.compile(r"^(?:\(\w+ pid=[0-9]+[^)]*\) ?|\[[0-9]+,[0-9]+\]<std(?:out|err)>: ?| {0,2}[0-9]+: |> )")
_TOPO_M = re.compile(r"^[\s#]*GPU0\b.*(?:CPU Affinity|GPU1)", re.MULTILINE)

FORMS = {
    "nvidia-smi topo -m": _TOPO_M,
    "NCCL graph XML": re.compile(r"<graphs\b"),
    "NCCL topology XML": re.compile(r"<system\b"),
    "ibnetdiscover": re.compile(r"^(?:Switch|Ca)\s+[0-9]+\s+\"[SH]-", re.MULTILINE),
    "ibdiagnet2.net_dump": re.compile(r"^#: *IB# *: *Sta", re.MULTILINE),
    "ASTRA-sim network.yml": re.compile(r"^npus_count\s*:", re.MULTILINE),
    "SimAI topology": re.compile(r"\A\s*[0-9]+ +[0-9]+ +[0-9]+ +[0-9]+ +[0-9]+ +[A-Za-z]\w*\s*$", re.MULTILINE),
}


def read_text(path: Path) -> tuple[str, str]:
    """Return the form and the cleaned text of a file.

    Raises:
        InputError: not readable, over 20 MB, not text, or no form that is known.
    """
    where = str(path)
    with reading(path, "save it as UTF-8", "is not UTF-8 text"):
        text = cleaned(content(path, MAX_BYTES).decode("utf-8-sig"))
    for form, pattern in FORMS.items():
        if pattern.search(text):
            return form, text
    raise InputError("is in no form of a topology that moesim knows", where, f"known: {', '.join(FORMS)}")


def cleaned(text: str) -> str:
    """Drop escapes, carriage returns, code fences and the prefixes that launchers put before each line."""
    lines = []
    for line in _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        while (found := _PREFIX.match(line)) is not None:
            line = line[found.end() :]
        if not line.lstrip().startswith("```"):
            lines.append(line)
    return "\n".join(lines)


def parse_xml(text: str, root: str, where: str) -> Element:
    """Return the tree of the first ``<root ...>`` to ``</root>`` in a text.

    Raises:
        InputError: cut off, not XML, a document type or entity, more than 100,000 elements.
    """
    begin, end = text.find(f"<{root}"), text.find(f"</{root}>")
    if end < begin:
        raise InputError(f"<{root}> has no </{root}>", where, "is the file whole?")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError("holds a document type or an entity", where, "NCCL writes none: give its own file")
    if text.count("<", begin, end) > 2 * MAX_ELEMENTS:
        raise InputError(f"more than {MAX_ELEMENTS:,} elements", where)
    try:
        return fromstring(text[begin : end + len(root) + 3])  # noqa: S314 - without a document type nothing expands
    except ParseError as error:
        line, column = error.position
        place = f"{where}:{line + text.count(chr(10), 0, begin)}:{column + 1}"
        raise InputError(f"not valid XML: {str(error).partition(':')[0]}", place) from None


def number(element: Element, name: str, otherwise: float = 0.0) -> float:
    """A decimal or hexadecimal attribute; ``otherwise`` where it is absent or no number that can be one here."""
    text = element.get(name, "").strip().lower().encode("ascii", "replace")
    try:
        value = float(int(text, 16)) if text.startswith(b"0x") else float(text)
    except (ValueError, OverflowError):
        return otherwise
    return value if abs(value) < 1e15 else otherwise
