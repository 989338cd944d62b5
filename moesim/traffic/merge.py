"""Entries of a sparse matrix, in any order and with repetitions, to rows: counting sort, sums of what repeats."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Above so many entries a row is sorted by numpy.
_SHORT = 48


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
    begin = np.zeros(n_rows + 1, np.int64)
    for r in row:
        begin[r + 1] += 1
    begin = np.cumsum(begin)
    order = np.empty(len(row), np.int64)
    free = begin[:-1].copy()
    for i in range(len(row)):
        order[free[row[i]]] = i
        free[row[i]] += 1
    ptr = np.zeros(n_rows + 1, np.int64)
    columns, sums = np.empty(len(row), np.int32), np.empty(len(row), np.float64)
    seen_in, place = np.full(n_columns, -1, np.int64), np.zeros(n_columns, np.int64)
    end = 0
    for r in range(n_rows):
        first = end
        for k in range(begin[r], begin[r + 1]):
            c = column[order[k]]
            if seen_in[c] == r:
                sums[place[c]] += value[order[k]]
            else:
                seen_in[c], place[c] = r, end
                columns[end], sums[end] = c, value[order[k]]
                end += 1
        ptr[r + 1] = end
        if end - first > _SHORT:
            sorted_row = np.argsort(columns[first:end])
            columns[first:end], sums[first:end] = columns[first:end][sorted_row], sums[first:end][sorted_row]
            continue
        for k in range(first + 1, end):
            c, s, j = columns[k], sums[k], k
            while j > first and columns[j - 1] > c:
                columns[j], sums[j] = columns[j - 1], sums[j - 1]
                j -= 1
            columns[j], sums[j] = c, s
    return ptr, columns[:end].copy(), sums[:end].copy()
