"""Rows of unequal length in one array: row r is ``entries[ptr[r]:ptr[r + 1]]`` (compressed sparse rows).

Links of each flow, ranks of each node, slots of each expert. ``ptr`` is int64 [rows + 1] and begins with 0. Numpy
alone, for every stage.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Ptrs = NDArray[np.int64]
_Scalar = TypeVar("_Scalar", bound=np.generic)


def from_lengths(length: NDArray[Any]) -> Ptrs:
    """Row pointers of rows of these lengths, int [rows]."""
    ptr = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=ptr[1:])
    return ptr


def pointers(owner: NDArray[Any], n_rows: int) -> Ptrs:
    """Row pointers of entries of which each names its row; they have to be sorted by it, int [entries]."""
    return from_lengths(np.bincount(owner, minlength=n_rows))


def spread(values: NDArray[_Scalar], ptr: Ptrs) -> NDArray[_Scalar]:
    """Each row's value at every entry of the row, [rows] to [entries]."""
    return np.repeat(values, np.diff(ptr))


def owners(ptr: Ptrs) -> NDArray[np.int64]:
    """Row of each entry, [entries]."""
    return spread(np.arange(len(ptr) - 1), ptr)


def rows_of(ptr: Ptrs, rows: NDArray[Any]) -> tuple[Ptrs, NDArray[np.int64]]:
    """Some rows, in the order given and as often as given: their pointers, and where their entries are.

    Args:
        ptr: of all rows.
        rows: the chosen ones, int [chosen].

    Returns:
        ``ptr`` [chosen + 1], and for each of their entries its position among all.
    """
    chosen = from_lengths(ptr[rows + 1] - ptr[rows])
    return chosen, np.arange(chosen[-1]) + spread(ptr[rows] - chosen[:-1], chosen)


def grouped(owner: NDArray[Any], values: NDArray[_Scalar], n_rows: int) -> tuple[Ptrs, NDArray[_Scalar]]:
    """Gather entries in any order into rows; within a row they keep their order.

    Args:
        owner: row of each entry, int [entries].
        values: the entries, [entries].
        n_rows: number of rows.

    Returns:
        Pointers and entries of the rows.
    """
    return pointers(owner, n_rows), values[np.argsort(owner, kind="stable")]
