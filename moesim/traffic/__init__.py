"""How many copies of each token go where, and the flows that carry them."""

from moesim.traffic.copies import Copies, count_all_copies, count_copies, expected_distinct

__all__ = ["Copies", "count_all_copies", "count_copies", "expected_distinct"]
