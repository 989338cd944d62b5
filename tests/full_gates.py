"""How many random cases a gate of docs/reliability.md takes: few for every change, all for ``./test.sh --full``."""

import os

FULL = os.environ.get("MOESIM_FULL_GATES") == "1"


def cases(each_change: int, full: int) -> int:
    """Return the number of cases of this run."""
    return full if FULL else each_change
