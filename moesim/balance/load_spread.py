"""Loads and the three ways in which the field prints their imbalance.

max/mean is the factor by which the busiest holds up the rest, mean/max its inverse (vLLM, SGLang) and
(max - mean)/mean the MaxVio of the papers (TensorRT-LLM prints it too): the same fact, easily confused, so
``imbalance`` returns all three. They apply to experts, ranks, nodes and links alike.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim import csr
from moesim.balance.sequence_load import max_over_mean_per_sequence
from moesim.balance.token_weights import sequences, token_weight
from moesim.errors import InputError
from moesim.routing import checked_selection


@dataclass(frozen=True)
class Imbalance:
    """Three spellings of the same imbalance; 1, 1 and 0 when all loads are equal."""

    max_over_mean: float
    mean_over_max: float
    max_violation: float


def imbalance(load: ArrayLike) -> Imbalance:
    """Return how far the largest load is above the mean.

    Args:
        load: [N], not negative: selections per expert, tokens per rank, bytes per link. No load at all counts
            as balanced.

    Raises:
        InputError: not one-dimensional, empty, negative or not finite.
    """
    loads = np.asarray(load, dtype=np.float64)
    if loads.ndim != 1 or loads.size == 0:
        raise InputError(f"loads of shape {loads.shape}", "load", "give a list with at least one load")
    if not (np.isfinite(loads).all() and (loads >= 0).all()):
        raise InputError("a load is negative or not finite", "load", "loads are counts or bytes")
    largest, mean = float(loads.max()), float(loads.mean())
    if largest == 0.0:
        return Imbalance(1.0, 1.0, 0.0)
    return Imbalance(largest / mean, mean / largest, (largest - mean) / mean)


def max_violation(load: ArrayLike) -> float:
    """Return MaxVio, ``(max - mean) / mean`` of the loads [N]; 0 when all are equal or none is loaded.

    Raises:
        InputError: not one-dimensional, empty, negative or not finite.

    Source: arXiv:2408.15664 eq. 4.
    """
    return imbalance(load).max_violation


def expert_load(expert_ids: ArrayLike, n_experts: int, weight: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return how often each expert was selected, float64 [E].

    Args:
        expert_ids: int [T, K]; -1 is a dropped copy and not counted.
        n_experts: E.
        weight: [T], how many copies of the token the batch holds; 1 each by default.

    Raises:
        InputError: wrong shapes, unknown expert ids, or negative weights.
    """
    ids = checked_selection(expert_ids, n_experts)
    copies = token_weight(weight, len(ids))
    kept = ids >= 0
    per_selection = np.broadcast_to(copies[:, None], ids.shape)[kept]
    return sum_by_row(ids[kept], per_selection, n_experts)


def sum_by_row(row: NDArray[Any], values: NDArray[Any], n_rows: int) -> NDArray[np.float64]:
    """Return the sum of the values [N] of each row, float64 [n_rows]; ``row`` [N] holds 0 to n_rows - 1."""
    return np.asarray(np.bincount(row, weights=values, minlength=n_rows), dtype=np.float64)


def tokens_received(
    expert_ids: NDArray[np.int32], device: NDArray[np.int64], copies: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Count the tokens that each device receives, a token with several experts there once, float64 [D]."""
    reached = np.sort(np.where(expert_ids >= 0, device[expert_ids], -1), axis=1)
    first = np.ones(reached.shape, dtype=bool)
    first[:, 1:] = reached[:, 1:] != reached[:, :-1]
    first &= reached >= 0
    per_device = np.broadcast_to(copies[:, None], reached.shape)[first]
    return sum_by_row(reached[first], per_device, int(device.max()) + 1)


def sequence_load(
    expert_ids: NDArray[np.int32], row: NDArray[np.int64], copies: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return how often each expert was selected in each sequence, float64 ``shape`` [S, E]."""
    counted = expert_ids >= 0
    cell = (row[:, None] * shape[1] + expert_ids)[counted]
    per_selection = np.broadcast_to(copies[:, None], expert_ids.shape)[counted]
    return sum_by_row(cell, per_selection, shape[0] * shape[1]).reshape(shape)


def sequence_imbalance(
    expert_ids: ArrayLike, sequence_id: ArrayLike, n_experts: int, weight: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return max/mean of the expert loads inside each sequence, float64 [sequences].

    One value per sequence that the batch holds, in the order of ``numpy.unique(sequence_id[weight > 0])``; a
    sequence that the batch holds several times has one value all the same.

    Args:
        expert_ids: int [T, K]; -1 is a dropped copy and not counted.
        sequence_id: int [T], which sequence the token belongs to; any whole numbers, in any order.
        n_experts: E.
        weight: [T], how many copies of the token the batch holds; 1 each by default.

    Raises:
        InputError: wrong shapes, unknown expert ids, or negative weights.
    """
    ids = checked_selection(expert_ids, n_experts)
    copies = token_weight(weight, len(ids))
    row, n_sequences = sequences(sequence_id, len(ids), copies)
    held = np.flatnonzero(row >= 0)
    sequence_ptr, order = csr.grouped(row[held], held, n_sequences)
    ratio = np.empty(n_sequences)
    max_over_mean_per_sequence(ids, copies, order, sequence_ptr, n_experts, ratio)
    return ratio
