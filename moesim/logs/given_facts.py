"""What a file cannot say and its user did, and what was noticed while reading.

Nothing is filled in silently: a fact is printed in the file, or given, or the benchmark's own default and then noted;
else it is asked for by name.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from moesim.bounded_text import number, whole
from moesim.errors import InputError
from moesim.logs.measured_row import BOUNDS, COLUMNS, QUANTITIES, REAL, WHOLE, MeasuredRow
from moesim.mistakes import did_you_mean

# What a measurement alone may say; everything else may be given.
_MEASURED = {"id", "op", "quantity", "value", "definition"}
_LONGEST_WORD = 1000
NAMES = tuple(name for name in (*COLUMNS, "gpus_per_node") if name not in _MEASURED)
# Facts about the cluster and the source that a benchmark prints nothing, or less, of.
_TOLD = (
    "library", "version", "cluster", "source_id", "nic", "nics_per_node", "nic_GBps_per_gpu", "nic_assumed", 
    "transport", "health", "date",
)  # fmt: skip


def cell(name: str, text: str | float) -> str | int | float:
    """Read the value of a column.

    Raises:
        ValueError: it is not what the column holds; the text says what would be.
    """
    least, most = BOUNDS.get(name, (0, 0))
    if name in WHOLE or name == "gpus_per_node":
        return whole(text, int(least), int(most))
    if name in REAL or name in QUANTITIES:
        value = number(text)
        if not least <= value <= most:
            raise ValueError(f"a number from {least:g} to {most:g} is needed")
        return value
    word = str(text).strip()
    if len(word) > _LONGEST_WORD or not word.isprintable():
        raise ValueError(f"printable text of at most {_LONGEST_WORD} characters is needed")
    if name == "health" and word not in ("ok", "poor"):
        raise ValueError("ok or poor is needed")
    return word


def rack_scale(gpu: str) -> bool:
    """Whether a GPU's NVLink domain is a rack, whose trays the hosts are."""
    return bool(re.match(r"G[BH][0-9]", gpu.upper()))


class Facts:
    """What was given for a file, and the notes that reading it makes.

    Args:
        given: by the names of a row's columns, and ``gpus_per_node``.
        where: the file.
        per_node: GPUs of an NVLink domain where neither the file nor what was given tells; None: ask.

    Raises:
        InputError: a name is unknown, or a value is not what its column holds.
    """

    def __init__(self, given: Mapping[str, str | float], where: str, per_node: int | None = None) -> None:
        self.where = where
        self._per_node = per_node
        self._notes: list[str] = []
        self._defaults: dict[str, int] = {}
        self._rows = 0
        self._given: dict[str, Any] = {}
        for name, value in given.items():
            option = f"--{name.replace('_', '-')}"
            if name not in NAMES:
                raise InputError(f"{name!r} is not a fact about a log", fix=did_you_mean(name, NAMES))
            try:
                self._given[name] = cell(name, value)
            except ValueError as error:
                raise InputError(f"{name} is {value!r}", where=option, fix=str(error)) from None

    def get(self, name: str) -> Any:
        """Return what was given, or None."""
        return self._given.get(name)

    def note(self, text: str) -> None:
        """Keep a remark about the file, once."""
        if text not in self._notes:
            self._notes.append(text)

    def remarks(self) -> tuple[str, ...]:
        """Return the notes, those about defaults as one."""
        taken = ", ".join(f"{name} {value}" for name, value in self._defaults.items())
        return (*self._notes, *((f"not printed, the benchmark's defaults: {taken}",) if taken else ()))

    def refuse(self, what: str, fix: str = "") -> InputError:
        """Return the error about the file."""
        return InputError(what, where=self.where, fix=fix)

    def said(self, name: str, printed: int | None, default: int | None = None) -> int:
        """Return a fact that is printed, given, or the default of the benchmark.

        Raises:
            InputError: it is none of them.
        """
        given = self.get(name)
        if printed is not None:
            if given not in (None, printed):
                self.note(f"{name} is {printed} in the file, not {given} as given")
            return printed
        if given is not None:
            return int(given)
        if default is None:
            raise self.asked(name)
        self._defaults[name] = default
        return default

    def place(
        self, gpu: str | None = None, ranks: int | None = None, nodes: int | None = None, inside: bool = False
    ) -> dict[str, Any]:
        """Say on what a measurement ran: ``gpu``, ``gpu_moesim``, ``ranks``, ``nodes``.

        Args:
            gpu, ranks, nodes: what the file says. Nodes are NVLink domains, which hosts may only resemble: what was
                given comes first.
            inside: it ran inside one node, whatever the rest of the file did.

        Raises:
            InputError: something is missing, or ranks do not divide into nodes.
        """
        called, per_node = self.get("gpu_moesim") or self.get("gpu"), self.get("gpus_per_node")
        gpu = gpu or (called.upper() if called else None)
        if ranks is not None:
            ranks = self.said("ranks", ranks)
        elif inside:
            ranks = min(filter(None, (self.get("ranks"), per_node)), default=None)
        else:
            ranks = self.get("ranks")
        nodes = 1 if inside else self.nodes(ranks, nodes)
        if not gpu or not ranks or not nodes:
            missing = {"gpu": gpu, "ranks": ranks, "gpus_per_node": nodes or (not ranks and self._per_node)}
            raise self.asked(*(name for name, value in missing.items() if not value))
        if ranks % nodes:
            raise self.refuse(f"{ranks} ranks on {nodes} nodes", "give --ranks and --gpus-per-node")
        return {"gpu": gpu, "gpu_moesim": (called or gpu).lower(), "ranks": ranks, "nodes": nodes}

    def nodes(self, ranks: int | None, printed: int | None = None) -> int | None:
        """Return the number of NVLink domains as given, printed, or assumed and noted; None where nobody says."""
        if ranks == 1 or self.get("nodes"):
            return 1 if ranks == 1 else int(self.get("nodes"))
        per_node = self.get("gpus_per_node")
        if not per_node and not printed and self._per_node:
            per_node = self._per_node
            self.note(f"how many GPUs a node has is not said: {per_node}, as is usual")
        return math.ceil(ranks / per_node) if ranks and per_node else printed

    def credible(self, us: float) -> float:
        """Return a time of DeepEP's tests, which print a second where another profiler kept theirs from running.

        Raises:
            InputError: it is such a second.
        """
        if us >= 999_999:
            raise self.refuse("a time of a second is no measurement", "run it without another profiler")
        return us

    def row(self, **columns: Any) -> MeasuredRow:
        """Make a row of a benchmark's; what was given about the cluster comes before what the file says of it.

        Raises:
            InputError: the value is no positive number.
        """
        told = {name: self.get(name) for name in _TOLD if self.get(name) is not None}
        for name, value in columns.items():
            if name in WHOLE and value is not None:
                try:
                    cell(name, value)
                except ValueError as error:
                    raise self.refuse(f"{name.replace('_', ' ')} of {columns['op']} is {value}", str(error)) from None
        remarks = [text for text in (columns.get("note"), self.get("note")) if text]
        try:
            columns["value"] = cell(columns["quantity"], columns["value"])
        except ValueError as error:
            raise self.refuse(f"{columns['quantity']} of {columns['op']} is {columns['value']}", str(error)) from None
        return self.named(columns | told | {"note": "; ".join(remarks) or None})

    def named(self, columns: Mapping[str, Any]) -> MeasuredRow:
        """Make a row with its ``id`` and ``source``: the file's name and a number, the file, if it has none."""
        self._rows += 1
        made: dict[str, Any] = {"id": f"{self._stem()}-{self._rows:02d}", "source": self.get("source") or self.where}
        return MeasuredRow(**made | {name: value for name, value in columns.items() if value is not None})

    def _stem(self) -> str:
        return self.where.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]

    def asked(self, *names: str) -> InputError:
        """Return the question for facts by name."""
        wanted = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        return self.refuse(f"does not say {', '.join(name.replace('_', ' ') for name in names)}", f"give {wanted}")
