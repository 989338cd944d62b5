"""NCCL's XML inside whatever text: no document type, no entities, bounded in elements."""

from xml.etree.ElementTree import Element, ParseError, fromstring

from moesim.errors import InputError

MAX_ELEMENTS = 100_000


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
    text = element.get(name, "").strip()
    try:
        value = float(int(text, 16)) if text.lower().startswith("0x") else float(text)
    except (ValueError, OverflowError):
        return otherwise
    return value if abs(value) < 1e15 else otherwise
