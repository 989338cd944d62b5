"""A batch of flows, as whoever starts them gives it, and as a network takes it once it is checked."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from moesim.errors import InputError
from moesim.network import checks
from moesim.network.exact.state import Floats, Ints, Pointers

_NOBODY = np.zeros(0, np.int32)


class CheckedFlows(NamedTuple):
    """The arrays of a ``FlowBatch``, every default written out."""

    route_ptr: Pointers
    route_links: Ints
    size: Floats
    start: Floats
    weight: Floats
    rate_cap: Floats
    waiter_ptr: Pointers
    waiter_ids: Ints


@dataclass(frozen=True, eq=False)
class FlowBatch:
    """Flows that start together.

    Flow f uses ``route_links[route_ptr[f]:route_ptr[f + 1]]`` with the ``weight`` (default 1) at the same place; a link
    named twice counts twice, weight 0 does not count. It takes part from ``start[f]`` (seconds, default now) on with
    ``size[f]`` bytes and never runs above ``rate_cap[f]`` bytes/s. Without bytes, or without a link to load, it
    finishes at its start. The waiters ``waiter_ids[waiter_ptr[f]:waiter_ptr[f + 1]]`` wait for it.
    """

    route_ptr: ArrayLike
    route_links: ArrayLike
    size: ArrayLike
    start: ArrayLike | None = None
    weight: ArrayLike | None = None
    rate_cap: ArrayLike | None = None
    waiter_ptr: ArrayLike | None = None
    waiter_ids: ArrayLike | None = None

    def checked(self, n_links: int, now: float | None = None, n_waiters: int = 0) -> CheckedFlows:
        """Return the arrays for a network of so many links and waiters that shows ``now``, seconds; None: not begun.

        Raises:
            InputError: shapes that do not fit, ids out of range, NaN, negative values, an infinite size or a start in
                the past.
        """
        links = checks.ids(self.route_links, "route_links", n_links)
        ptr = checks.pointers(self.route_ptr, "route_ptr", len(links))
        n = len(ptr) - 1
        weight = checks.numbers(self.weight, "weight", len(links), "route entry", default=1.0)
        size = checks.numbers(self.size, "size", n)
        start = checks.numbers(self.start, "start", n, least=-np.inf if now is None else now, default=now)
        cap = checks.numbers(self.rate_cap, "rate_cap", n, infinite=True, default=np.inf)
        wait_ids = checks.ids(_NOBODY if self.waiter_ids is None else self.waiter_ids, "waiter_ids", n_waiters)
        given_ptr = np.zeros(n + 1, np.int64) if self.waiter_ptr is None else self.waiter_ptr
        wait_ptr = checks.pointers(given_ptr, "waiter_ptr", len(wait_ids))
        if len(wait_ptr) != n + 1:
            raise InputError(f"is for {len(wait_ptr) - 1} flows, route_ptr for {n}", "waiter_ptr")
        return CheckedFlows(ptr, links, size, start, weight, cap, wait_ptr, wait_ids)
