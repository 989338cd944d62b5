"""The text of a log without what a terminal, a launcher or an issue tracker put around it."""

import re
from pathlib import Path

from moesim.errors import InputError

_MOST_BYTES = 64 * 10**6
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# srun -l and pdsh, Ray, mpirun --tag-output, torchrun --tee, torch's own, container logs.
_PREFIX = re.compile(
    r"^(?:[ \t]*(?:[\w.-]+:(?: |$)|\(\w[\w ]* pid=\d+[^)]*\) ?|\[[^\]\s]*\d+,\d+\]<std(?:out|err)>: ?"
    r"|\[(?:default|rank)\d+\]: ?|\d{4}-\d\d-\d\dT[\d:.]+Z? (?:std(?:out|err) [FP] )?))+",
    re.MULTILINE,
)
_FENCE = re.compile(r"^\s*(?:```|~~~).*$", re.MULTILINE)


def text_of(path: Path) -> str:
    """Return a file's text, whatever wrote it. Raises InputError: it cannot be read, is too large or is no text."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"is larger than {_MOST_BYTES // 10**6} MB", where=str(path), fix="keep its results only")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    # A log that PowerShell redirected is UTF-16.
    encodings = ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise InputError("is not text", where=str(path), fix="give a log, a JSON or a CSV")


def plain(text: str) -> str:
    """Take away escape sequences, carriage returns, code fences and the prefixes of launchers."""
    text = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _PREFIX.sub("", _FENCE.sub("", text))
