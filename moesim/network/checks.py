"""What flows must satisfy before they enter a network; every fault is an InputError naming the flow."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from moesim.errors import InputError
from moesim.network.exact.state import Floats, Ints, Pointers


def ids(values: ArrayLike, name: str, n: int) -> Ints:
    """Return ``values`` as int32 ids below ``n``."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"has {array.ndim} dimensions", name, "give one dimension")
    if array.size == 0:
        return np.zeros(0, np.int32)
    if array.dtype.kind not in "iu":
        raise InputError(f"has type {array.dtype}", name, "give integers")
    if array.min() < 0 or array.max() >= n:
        at = int(np.argmax((array < 0) | (array >= n)))
        raise InputError(f"entry {at} is {array[at]}", name, f"ids run from 0 to {n - 1}")
    return np.ascontiguousarray(array, np.int32)


def pointers(values: ArrayLike, name: str, n_entries: int) -> Pointers:
    """Return ``values`` as the row pointers of a CSR matrix with ``n_entries`` entries."""
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise InputError("is not a list of integers", name, "give n + 1 row pointers")
    array = np.ascontiguousarray(array, np.int64)
    if array[0] != 0 or array[-1] != n_entries or (array[1:] < array[:-1]).any():
        raise InputError(f"does not rise from 0 to the {n_entries} entries", name)
    return array


def numbers(
    values: ArrayLike | None,
    name: str,
    n: int,
    what: str = "flow",
    *,
    least: float = 0.0,
    infinite: bool = False,
    default: float | None = None,
) -> Floats:
    """Return ``values`` as ``n`` floats, none of them NaN or below ``least``, finite unless ``infinite``.

    None stands for ``n`` times ``default``.
    """
    if values is None and default is not None:
        return np.full(n, default)
    try:
        array: Any = np.ascontiguousarray(values, np.float64)
    except (TypeError, ValueError):
        raise InputError("is not a list of numbers", name) from None
    if array.shape != (n,):
        raise InputError(f"has shape {array.shape}", name, f"expected {n} values, one for each {what}")
    wrong = ~(array >= least) if infinite else ~((array >= least) & (np.abs(array) < np.inf))
    if wrong.any():
        at = int(np.argmax(wrong))
        bound = "a finite number" if not infinite else "a number or inf"
        bound += "" if least == -np.inf else f", at least {least:g}"
        raise InputError(f"{what} {at} has {array[at]}", name, f"it must be {bound}")
    return array  # type: ignore[no-any-return]
