"""Entries of a sparse matrix, in any order and with repetitions, to rows: two counting sorts, sums of what repeats."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import njit


@njit(cache=True)
def sort_by(key: NDArray[Any], n_keys: int, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``order`` sorted by ``key[order]``, each in [0, n_keys); equal keys stay in order."""
    free = np.zeros(n_keys + 1, np.int64)
    for k in key:
        free[k + 1] += 1
    for k in range(n_keys):
        free[k + 1] += free[k]
    result = np.empty_like(order)
    for i in order:
        result[free[key[i]]] = i
        free[key[i]] += 1
    return result


@njit(cache=True)
def merge_rows(
    row: NDArray[np.int64], column: NDArray[np.int32], value: NDArray[np.float64], n_rows: int, n_columns: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Sum the values of equal (row, column) entries, in their order, and sort them by row and column.

    Args:
        row, column, value: the entries.
        n_rows, n_columns: sizes of the matrix.

    Returns:
        Row pointers, columns and sums (CSR).
    """
    order = sort_by(row, n_rows, sort_by(column, n_columns, np.arange(len(row))))
    ptr = np.zeros(n_rows + 1, np.int64)
    columns, sums = np.empty(len(row), np.int32), np.empty(len(row), np.float64)
    end, last_row, last_column = -1, -1, -1
    for i in order:
        if row[i] != last_row or column[i] != last_column:
            end, last_row, last_column = end + 1, row[i], column[i]
            columns[end], sums[end] = last_column, 0.0
            ptr[last_row + 1] += 1
        sums[end] += value[i]
    for r in range(n_rows):
        ptr[r + 1] += ptr[r]
    return ptr, columns[: end + 1].copy(), sums[: end + 1].copy()
