"""A small XML file as a tree: no document type, no entities, bounded in depth and in elements."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from moesim.errors import InputError

MAX_DEPTH = 64
MAX_ELEMENTS = 100_000


@dataclass
class Element:
    """An element, what is in it and what it is in."""

    tag: str
    attributes: dict[str, str]
    inside: "Element | None" = None
    children: list["Element"] = field(default_factory=list)

    def get(self, name: str) -> str:
        """An attribute's text, stripped; empty where there is none."""
        return self.attributes.get(name, "").strip()

    def number(self, name: str, otherwise: float = 0.0) -> float:
        """A decimal or hexadecimal attribute; ``otherwise`` where it is absent or no number that can be one here."""
        text = self.get(name)
        try:
            value = float(int(text, 16)) if text.lower().startswith("0x") else float(text)
        except (ValueError, OverflowError):
            return otherwise
        return value if abs(value) < 1e15 else otherwise

    def below(self, tag: str) -> Iterator["Element"]:
        """All elements of a tag in it, at any depth, in the order of the file."""
        for child in self.children:
            if child.tag == tag:
                yield child
            yield from child.below(tag)

    def within(self) -> list["Element"]:
        """The elements that it is in, from near to far, without the outermost."""
        path, at = [], self.inside
        while at is not None and at.inside is not None:
            path.append(at)
            at = at.inside
        return path


def parse_xml(text: str, root: str, where: str) -> Element:
    """Return the tree of the first ``<root ...>`` to ``</root>`` in a text.

    Raises:
        InputError: cut off, not XML, a document type or entity, deeper than 64 or more than 100,000 elements.
    """
    begin, end = text.find(f"<{root}"), text.find(f"</{root}>")
    if end < begin:
        raise InputError(f"<{root}> has no </{root}>", where, "is the file whole?")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError("holds a document type or an entity", where, "NCCL writes none: give its own file")
    top: list[Element] = []
    stack: list[Element] = []
    seen = 0

    def opened(tag: str, attributes: dict[str, str]) -> None:
        nonlocal seen
        seen += 1
        if len(stack) >= MAX_DEPTH or seen > MAX_ELEMENTS:
            raise InputError(f"nested deeper than {MAX_DEPTH} or more than {MAX_ELEMENTS:,} elements", where)
        element = Element(tag, attributes, stack[-1] if stack else None)
        (stack[-1].children if stack else top).append(element)
        stack.append(element)

    parser = expat.ParserCreate()
    parser.StartElementHandler = opened
    parser.EndElementHandler = lambda _tag: stack.pop()
    try:
        parser.Parse(text[begin : end + len(root) + 3], True)
    except expat.ExpatError as error:
        line = error.lineno + text.count("\n", 0, begin)
        place = f"{where}:{line}:{error.offset + 1}"
        raise InputError(f"not valid XML: {expat.ErrorString(error.code)}", place) from None
    return top[0]
