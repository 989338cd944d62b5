"""Where all output goes: names and texts come from files, and none of them may steer the terminal; nor may a reader
that goes away (``| head``) end the work.
"""

import os
import re
import unicodedata
from typing import Any, TextIO

# Kinds of characters that steer rather than show: controls, formats (text directions among them), halves of pairs.
_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_ODD = re.compile(r"[^\n\t -~]")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m|[^\n\t -~]")


def harmless(text: str, colours: bool = False) -> str:
    """Return a text with a question mark for whatever does not show but steers; lines and tabs, or colours, stay."""
    odd = _COLOURS if colours else _ODD
    return odd.sub(lambda found: "?" if unicodedata.category(found[0][-1]) in _STEERING else found[0], text)


class Outlet:
    """A text stream in front of another, of which it hides nothing but ``write`` and ``flush``.

    Attributes:
        stream: the one behind. What it cannot encode it shows as question marks.
        styled: writes as given, for a terminal's colours and bars, whose words were cleaned before.
    """

    def __init__(self, stream: TextIO, clean: bool = True) -> None:
        self.stream, self._clean = stream, clean
        if clean:
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
            self.styled: TextIO = Outlet(stream, clean=False)  # type: ignore[assignment]

    def write(self, text: str) -> int:
        """Write; nothing any more once nobody reads."""
        try:
            # The parser's help has colours on a terminal.
            self.stream.write(harmless(text, colours=self.stream.isatty()) if self._clean else text)
        except BrokenPipeError:
            self._close()
        return len(text)

    def flush(self) -> None:
        """Flush, as long as somebody reads."""
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._close()

    def _close(self) -> None:
        """Send what follows, and what Python flushes at its exit, nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def styled(stream: Any) -> Any:
    """Return the way past the filter of a standard stream, for who has cleaned the words of it already."""
    return getattr(stream, "styled", stream)
