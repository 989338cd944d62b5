"""The part that a row plays in a fit: fitted or held out, of even or of uneven loads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compute.fitted.families import Family
from moesim.compute.fitted.split import frozen
from moesim.compute.fitted.timed_rows import Rows
from moesim.errors import InputError


def held_out(rows: Rows) -> NDArray[np.bool_]:
    """Return which rows the frozen split holds out."""
    roles = frozen()
    try:
        return np.array([roles[rows.family, rows.gpu, shape] == "held_out" for shape in rows.shape])
    except KeyError as missing:
        raise InputError(f"shape {missing} has no role", "data/kernels/split.csv", "add it before fitting") from None


def even(rows: Rows) -> Rows:
    """Return the rows of even loads."""
    return rows.where(rows.exponent == 0)


def drawn(family: Family, rows: Rows) -> Rows:
    """Return the rows of uneven loads on which the family is judged."""
    if family.drawn is None:
        return rows.where(np.zeros(len(rows), dtype=np.bool_))
    return rows.where((rows.exponent > 0) & family.drawn(rows))
