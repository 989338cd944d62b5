"""Device-level token dropping, as DeepSeek-V2 trains: each device takes so many copies, those of highest affinity."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError
from moesim.routing import checked_selection


def drop_over_capacity(
    expert_ids: ArrayLike,
    affinities: ArrayLike,
    device_of_expert: ArrayLike,
    capacity_factor: float,
    exempt: ArrayLike | None = None,
) -> NDArray[np.int32]:
    """Return the selection with -1 in the place of the copies that their device has no room for, int32 [T, K].

    A device takes ``ceil(capacity_factor * copies / devices)``: first those of exempt tokens, however many, then the
    others by descending affinity, ties by the lower token.

    Args:
        expert_ids: int [T, K]; -1 is dropped already.
        affinities: [T, K], of the selected experts.
        device_of_expert: int [E].
        capacity_factor: over the even share of a device; 1.0 in DeepSeek-V2's training, none at evaluation.
        exempt: bool [T], tokens that are never dropped (those of about a tenth of the sequences); none by default.

    Raises:
        InputError: wrong shapes, or a factor that is not above 0.

    Source: DeepSeek-V2 section 2.2.4.
    """
    device_of = np.asarray(device_of_expert)
    ids = checked_selection(expert_ids, len(device_of))
    affinity = np.asarray(affinities, dtype=np.float64)
    kept_anyway = np.zeros(len(ids), bool) if exempt is None else np.asarray(exempt, bool)
    if affinity.shape != ids.shape or kept_anyway.shape != (len(ids),):
        raise InputError(f"affinities have shape {affinity.shape}", "affinities", f"give {ids.shape}")
    if not capacity_factor > 0:
        raise InputError(f"a capacity factor of {capacity_factor:g}", "capacity_factor", "give one above 0")
    flat = ids.ravel()
    taken = np.flatnonzero(flat >= 0)
    device = device_of[flat[taken]]
    capacity = int(np.ceil(capacity_factor * len(taken) / len(np.unique(device_of))))
    order = np.lexsort((-affinity.ravel()[taken], ~np.repeat(kept_anyway, ids.shape[1])[taken], device))
    sorted_device = device[order]
    place = np.arange(len(order)) - np.searchsorted(sorted_device, sorted_device)
    over = taken[order[place >= capacity]]
    kept = flat.copy()
    kept[over[~np.repeat(kept_anyway, ids.shape[1])[over]]] = -1
    return kept.reshape(ids.shape)
