"""When each rank enters the first layer: a list, one number, or a distribution of the scenario."""

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.scenario import ExponentialOffset, LognormalOffset, NormalOffset, Offset, UniformOffset


def start_offsets(
    offset: float | tuple[float, ...] | Offset, n_ranks: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return each rank's arrival in seconds, [ranks].

    Raises:
        InputError: a list of another length than there are ranks.
    """
    if isinstance(offset, (int, float)):
        return np.full(n_ranks, float(offset))
    if isinstance(offset, tuple):
        if len(offset) != n_ranks:
            raise InputError(
                f"{len(offset)} offsets for {n_ranks} ranks",
                where="schedule.start_offset",
                fix="give one per rank, one number for all, or a distribution",
            )
        return np.array(offset)
    return _draw(offset, n_ranks, rng)


def _draw(offset: Offset, n_ranks: int, rng: np.random.Generator) -> NDArray[np.float64]:
    match offset:
        case LognormalOffset():
            return offset.scale * rng.lognormal(0.0, offset.sigma, n_ranks)
        case UniformOffset():
            return rng.uniform(0.0, offset.scale, n_ranks)
        case NormalOffset():
            return np.maximum(rng.normal(offset.mean, offset.scale, n_ranks), 0.0)
        case ExponentialOffset():
            return rng.exponential(offset.scale, n_ranks)
