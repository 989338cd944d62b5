"""Blocks of tokens on all cores; the answers come in the order of the blocks, whichever core was first.

Compiled kernels let go of Python's lock, so plain threads do. What a block adds to a sum is handed back and added in
order, so that results do not depend on the number of threads.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from moesim.compiling import n_threads

_Answer = TypeVar("_Answer")
# Blocks in the air per thread: enough to keep it busy, few enough that answers do not pile up.
_AHEAD = 8


def in_blocks(work: Callable[[int], _Answer], n_blocks: int) -> Iterator[_Answer]:
    """Yield ``work(0), work(1), ...`` in this order, computed on as many threads as there are cores."""
    threads = min(n_threads(), n_blocks)
    if threads <= 1:
        yield from map(work, range(n_blocks))
        return
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, n_blocks, _AHEAD * threads):
            yield from pool.map(work, range(start, min(start + _AHEAD * threads, n_blocks)))
