"""The flows that start later: a binary heap by (start, slot) (numba kernels)."""

# mypy: allow-untyped-decorators

from moesim.compiling import njit
from moesim.network.exact.state import N_PENDING, FlowState
from moesim.network.kernel_options import inlined


@inlined
def earlier(s: FlowState, one: int, other: int) -> bool:
    """Return whether flow ``one`` starts before ``other``; equal times in order of slots."""
    if s.flow.start[one] != s.flow.start[other]:
        return bool(s.flow.start[one] < s.flow.start[other])
    return one < other


@inlined
def push_start(s: FlowState, flow: int) -> None:
    """Put a flow into the heap of starts."""
    heap = s.pending_flow
    i = s.tally[N_PENDING]
    s.tally[N_PENDING] += 1
    while i > 0:
        parent = (i - 1) // 2
        if not earlier(s, flow, heap[parent]):
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = flow


@inlined
def pop_start(s: FlowState) -> int:
    """Take the first flow from the heap of starts."""
    heap = s.pending_flow
    first = heap[0]
    s.tally[N_PENDING] -= 1
    n = s.tally[N_PENDING]
    flow = heap[n]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        if child + 1 < n and earlier(s, heap[child + 1], heap[child]):
            child += 1
        if not earlier(s, heap[child], flow):
            break
        heap[i] = heap[child]
        i = child
    heap[i] = flow
    return int(first)


@njit(cache=True)
def forget_start(s: FlowState, flow: int) -> None:
    """Take a flow from the middle of the heap of starts."""
    n = s.tally[N_PENDING]
    s.tally[N_PENDING] = 0
    others = s.pending_flow[:n].copy()
    for other in others:
        if other != flow:
            push_start(s, other)
