"""Bytes alone: a published bandwidth times the time beside it are the bytes that the publisher counted.

They are compared with the copies counted here for the same routing, times the same bytes per copy. No constant enters,
so a difference past the printed rounding would be a wrong count.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from moesim.validate.benches import bench_of
from moesim.validate.published_row import Row

ALLOWED = 0.01
# With fewer tokens it is chance how many of the ten selections that the low-latency test masks are the same.
_LEAST_TOKENS = 12


@dataclass(frozen=True)
class Accounted:
    """Bytes that a publisher counted and those counted here; ``error`` is relative."""

    row: Row
    published: float
    counted: float

    @property
    def error(self) -> float:
        """Counted here over published, less one."""
        return self.counted / self.published - 1

    @property
    def within(self) -> bool:
        """Whether they agree within one per cent, or within what the printed digits leave open."""
        return abs(self.error) <= max(ALLOWED, self.row.rounding)


def account(rows: Iterable[Row]) -> Iterator[Accounted]:
    """Compare the bytes of every row that prints both a time and a bandwidth."""
    for row in rows:
        if row.bandwidth_GBps is None or row.tokens < _LEAST_TOKENS:
            continue
        bench = bench_of(row)
        copies = {
            "deepep-ll": bench.copies.selections,
            "trtllm-one-sided": bench.copies.rank_copies,
        }.get(row.library, bench.copies.node_copies)
        yield Accounted(
            row,
            published=row.bandwidth_GBps * 1e9 * row.published * 1e-6,
            counted=float(copies.sum()) / row.ranks * bench.counted_bytes,
        )
