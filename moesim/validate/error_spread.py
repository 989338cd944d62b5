"""How far rows are off: median and ninth decile of their absolute relative errors."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from moesim.validate.evaluate_rows import Outcome


@dataclass(frozen=True)
class Spread:
    """How far a group of rows is off: absolute relative errors."""

    rows: int
    median: float
    p90: float
    worst: float

    @classmethod
    def of(cls, outcomes: "Iterable[Outcome]") -> "Spread | None":
        """Spread of the rows that were simulated; None if there is none."""
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        return cls.of_errors(errors) if errors else None

    @classmethod
    def of_errors(cls, errors: ArrayLike) -> "Spread":
        """Spread of relative errors, at least one."""
        off = np.abs(errors)
        return cls(len(off), float(np.median(off)), float(np.quantile(off, 0.9)), float(off.max()))

    def within(self, bar: tuple[float, float]) -> bool:
        """Whether median and ninth decile are inside a bar."""
        return self.median <= bar[0] and self.p90 <= bar[1]

    def figures(self) -> dict[str, float]:
        """Median and ninth decile as files of sets say them, to four digits."""
        return {"median": round(self.median, 4), "p90": round(self.p90, 4)}
