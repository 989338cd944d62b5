"""How fast a placement ages: learnt on the first window of a recording, judged on every later one."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.balance import imbalance
from moesim.placement import Placement
from moesim.results import Ageing

LEAST_WINDOWS, LEAST_TOKENS = 20, 256
_MOST_WINDOWS = 40
# Windows over which a gain is averaged, since one alone is noisy.
_TOGETHER = 4

Place = Callable[[NDArray[np.int64], NDArray[np.int32]], Placement]
"""Places experts by a load [experts] and selections [tokens, top_k]."""


def too_short(why: str) -> Ageing:
    """Say that ageing cannot be told."""
    return Ageing(0, f"How long a placement stays good is not known: {why}.")


def ageing(ids: Sequence[NDArray[np.int32]], n_experts: int, present: Sequence[Placement], place: Place) -> Ageing:
    """Measure how fast a placement ages.

    Args:
        ids: of each layer, the selections in the order recorded, [tokens, top_k].
        n_experts: of a layer.
        present: the placement of each layer that is to be beaten.
        place: makes a new one.
    """
    tokens = len(ids[0])
    n_windows = min(_MOST_WINDOWS, tokens // LEAST_TOKENS)
    if n_windows < LEAST_WINDOWS:
        return too_short(f"{tokens:,} tokens were recorded, {LEAST_WINDOWS} windows of {LEAST_TOKENS} are needed")
    length = tokens // n_windows
    curves = {name: np.zeros(n_windows - 1) for name in ("none", "stale", "fresh", "itself")}
    for layer, its in enumerate(ids):
        windows = [its[i * length : (i + 1) * length] for i in range(n_windows)]
        loads = [np.bincount(window[window >= 0], minlength=n_experts) for window in windows]
        placed = [place(load, window) for load, window in zip(loads, windows, strict=True)]
        for i, load in enumerate(loads[1:]):
            by = {"none": present[layer], "stale": placed[0], "fresh": placed[i], "itself": placed[i + 1]}
            for name, placement in by.items():
                curves[name][i] += imbalance(placement.planned_rank_load(load)).max_over_mean / len(ids)
    return _told(length, curves)


def _told(length: int, curves: dict[str, NDArray[np.float64]]) -> Ageing:
    stale, fresh = (curves["none"] - curves[name] for name in ("stale", "fresh"))
    shown = {name: tuple(curve.tolist()) for name, curve in curves.items()}
    windows = f"windows of {length:,} tokens"
    if fresh.mean() <= 0:
        said = f"A placement learnt on the window before evens out nothing here ({windows})."
        return Ageing(length, said, shown)
    parts = [slice(i, i + _TOGETHER) for i in range(len(stale) - _TOGETHER + 1)]
    good = [i for i, part in enumerate(parts) if stale[part].mean() >= 0.5 * fresh[part].mean()]
    kept = f"{100 * stale.mean() / fresh.mean():.0f} % of what one learnt on the window before evens out"
    if good and good[-1] == len(parts) - 1:
        return Ageing(length, f"Over {len(stale)} {windows} it keeps {kept}.", shown)
    lasts = good[-1] + 2 if good else 1
    said = f"Over {len(stale)} {windows} it keeps {kept}; half of that is lost from window {lasts} on."
    return Ageing(length, said, shown, lasts)
