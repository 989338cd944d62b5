"""A file of measurements as rows: the form is known by its content, and named.

Of the text, what a terminal, a launcher or an issue tracker put around it is taken away first.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from moesim.broken_files import content
from moesim.errors import InputError
from moesim.logs import (
    deepep_low_latency,
    deepep_normal,
    deepep_v2,
    ib_perftest,
    nccl_tests,
    nvshmem_perftest,
    pplx_bench,
    rows_table,
)
from moesim.logs.given_facts import Facts
from moesim.logs.measured_row import Log, MeasuredRow

_MOST_BYTES = 64 * 10**6
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# srun -l and pdsh, Ray, mpirun --tag-output, torchrun --tee, torch's own, container logs.
_PREFIX = re.compile(
    r"^(?:[ \t]*(?:[\w.-]+:(?: |$)|\(\w[\w ]* pid=[0-9]+[^)]*\) ?|\[[^\]\s]*[0-9]+,[0-9]+\]<std(?:out|err)>: ?"
    r"|\[(?:default|rank)[0-9]+\]: ?|[0-9]{4}-[0-9][0-9]-[0-9][0-9]T[0-9:.]+Z? (?:std(?:out|err) [FP] )?))+",
    re.MULTILINE,
)
_FENCE = re.compile(r"^\s*(?:```|~~~).*$", re.MULTILINE)


def text_of(path: Path) -> str:
    """Return a file's text, whatever wrote it. Raises InputError: it cannot be read, is too large or is no text."""
    data = content(path, _MOST_BYTES)
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


_Read = Callable[[str, Facts], list[MeasuredRow] | None]
_READERS: dict[str, _Read] = {
    nccl_tests.FORM: nccl_tests.read,
    nccl_tests.JSON_FORM: nccl_tests.read_json,
    deepep_normal.FORM: deepep_normal.read,
    deepep_low_latency.FORM: deepep_low_latency.read,
    deepep_v2.FORM: deepep_v2.read,
    pplx_bench.FORM: pplx_bench.read,
    nvshmem_perftest.FORM: nvshmem_perftest.read,
    ib_perftest.FORM: ib_perftest.read,
}
FORMS = (*_READERS, rows_table.FORM)


def read_log(path: Path | str, given: Mapping[str, str | float] | None = None, per_node: int | None = None) -> Log:
    """Read a benchmark's output, or a table of rows.

    The file may be a whole issue or terminal log; several benchmarks in one file are all read.

    Args:
        path: the file.
        given: what it cannot say, by the names of a row's columns, and ``gpus_per_node``, the GPUs of an NVLink domain.
        per_node: what to assume of the latter, and note, where nothing tells; None: ask.

    Raises:
        InputError: the file cannot be read, no form is known in it, a fact is missing (it is asked for by name), or a
            table has mistakes (as file:line:column).
    """
    text = plain(text_of(Path(path)))
    facts = Facts(given or {}, str(path), per_node)
    readers: dict[str, _Read] = {rows_table.FORM: rows_table.read_table} if rows_table.is_table(text) else _READERS
    try:
        found = {form: rows for form, read in readers.items() if (rows := read(text, facts)) is not None}
    except InputError:
        raise
    except ArithmeticError:
        raise facts.refuse("has a time, a rate or a size of nothing", "take that line out") from None
    except ValueError as error:  # thousands of digits
        raise facts.refuse(f"holds what is no number: {error}") from None
    if not found:
        first = next((line.strip() for line in text.splitlines() if line.strip()), "")
        what = f"holds no measurement: its first line is {first!r:.80}" if first else "is empty"
        raise InputError(what, where=str(path), fix=f"read are: {', '.join(FORMS)}")
    every = tuple(row for each in found.values() for row in each)
    form = " and ".join(form for form, each in found.items() if each or not every)
    if not every:
        raise InputError(f"is {form}, but holds no measurement", where=str(path), fix="; ".join(facts.remarks()))
    return Log(form, every, facts.remarks())
