"""A time and where it comes from: the sources, the result types, and the bill that adds parts up.

Sources, most trusted first: ``measured`` (a published or own row, verbatim), ``interpolated`` (between rows),
``fitted`` (a model fitted to rows), ``extrapolated`` (past the last row), ``estimated`` (a roofline).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np

from moesim.compute.roofline import Floats

Source = Literal["measured", "interpolated", "fitted", "extrapolated", "estimated"]
SOURCES: tuple[Source, ...] = ("measured", "interpolated", "fitted", "extrapolated", "estimated")


@dataclass(frozen=True)
class KernelTime:
    """Time of one kernel (or MLP) on one GPU.

    ``source`` is the source of most of the time and ``error`` the relative error of that part, None where
    it is not known. ``shares`` gives the part of the seconds that each source has; they sum to 1.
    """

    seconds: float
    source: Source
    error: float | None
    note: str = ""
    shares: Mapping[Source, float] = field(default_factory=dict)


@dataclass(frozen=True)
class KernelTimes:
    """Times of one kernel on many ranks: ``seconds[ranks]``; the rest as in KernelTime, over their sum."""

    seconds: Floats
    source: Source
    error: float | None
    note: str = ""
    shares: Mapping[Source, float] = field(default_factory=dict)

    def scaled(self, factor: float | Floats) -> Self:
        """Return the times multiplied by ``factor``."""
        return self if np.all(factor == 1.0) else replace(self, seconds=self.seconds * factor)

    def one(self) -> KernelTime:
        """Return the only rank's time."""
        return KernelTime(float(self.seconds.item()), self.source, self.error, self.note, self.shares)


class Bill:
    """Seconds[ranks] by source while the parts of a kernel are added up."""

    def __init__(self) -> None:
        self._seconds: dict[Source, Floats] = {}
        self._errors: dict[Source, list[tuple[float, float | None]]] = {}
        self._notes: dict[str, None] = {}

    def add(self, source: Source, seconds: Floats, error: float | None = None, note: str = "") -> None:
        """Add ``seconds[ranks]`` with its relative error; the same note is kept once."""
        self._seconds[source] = self._seconds.get(source, np.zeros(())) + seconds
        self._errors.setdefault(source, []).append((float(seconds.sum()), error))
        self.note(note)

    def note(self, note: str) -> None:
        """Keep ``note``, once; an empty one says nothing."""
        if note:
            self._notes[note] = None

    def close(self) -> KernelTimes:
        """Return the sum; its error is the time-weighted mean over the largest source's known ones."""
        total = np.atleast_1d(np.sum(list(self._seconds.values()), axis=0))
        whole = float(total.sum())
        shares: dict[Source, float] = {
            source: float(self._seconds[source].sum()) / whole
            for source in SOURCES
            if source in self._seconds and self._seconds[source].any()
        }
        source: Source = max(shares, key=lambda name: shares[name], default="estimated")
        known = [(weight, error) for weight, error in self._errors.get(source, []) if error is not None]
        weights = sum(weight for weight, _ in known)
        error = sum(weight * error for weight, error in known) / weights if weights > 0 else None
        return KernelTimes(total, source, error, "; ".join(self._notes), shares)
