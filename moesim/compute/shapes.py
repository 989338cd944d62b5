"""Checks on the shapes that callers give: whole, finite, not negative, and loads as [ranks, slots]."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.compute.gpus import BYTES_PER_ELEMENT, nearest
from moesim.compute.roofline import Floats
from moesim.errors import InputError

# Of the product of two sizes and a count the tiles are still a 64-bit integer.
LARGEST_COUNT, LARGEST_SIZE = 1 << 40, 10**8


def counts(name: str, given: ArrayLike, least: int = 0, whole: bool = True, most: int = LARGEST_COUNT) -> Floats:
    """Return ``given`` as float64. Raises InputError naming ``name`` where it is none from ``least`` to ``most``."""
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {given!r}", name, "expected numbers") from None
    bad = ~((values >= least) & (values <= most))
    if whole:
        bad |= values != np.floor(values)
    if bad.any():
        what = "a whole number" if whole else "a number"
        raise InputError(f"{name} is {float(values[bad].flat[0]):g}", name, f"expected {what} from {least} to {most}")
    return values


def size(name: str, given: int) -> int:
    """Return a size of at least 1."""
    value = counts(name, given, least=1, most=LARGEST_SIZE)
    if value.ndim:
        raise InputError(f"{name} is an array", name, "expected one size for all ranks")
    return int(value)


def dtype_name(given: str) -> str:
    """Return ``given`` if it is a number format that kernels are priced in."""
    if given not in BYTES_PER_ELEMENT:
        raise InputError(f"unknown dtype {given!r}", "dtype", nearest(str(given), BYTES_PER_ELEMENT))
    return given


def loads(name: str, given: ArrayLike, rank_ptr: ArrayLike | None = None) -> NDArray[np.int64]:
    """Return rows per expert as [ranks, slots], padded with 0 where ``rank_ptr`` (CSR) makes ranks uneven."""
    values = counts(name, given).astype(np.int64)
    if rank_ptr is None:
        if values.ndim not in (1, 2):
            raise InputError(f"{name} has {values.ndim} axes", name, "expected [slots] or [ranks, slots]")
        if values.ndim == 2 and len(values) == 0:
            raise InputError(f"{name} has no rank", name)
        return np.atleast_2d(values)
    ptr = np.asarray(rank_ptr)
    widths = np.diff(ptr)
    if values.ndim != 1 or ptr.ndim != 1 or len(ptr) < 2 or ptr[0] != 0 or ptr[-1] != len(values) or (widths < 0).any():
        raise InputError(
            "rank_ptr does not split the slots",
            "rank_ptr",
            f"expected 0 to {len(values)}, ascending, {name} flat",
        )
    padded = np.zeros((len(widths), int(widths.max())), dtype=np.int64)
    padded[np.arange(padded.shape[1]) < widths[:, None]] = values
    return padded
