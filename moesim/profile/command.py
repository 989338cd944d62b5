"""What both command lines call: measure, then say in a few lines what came out."""

import math
import os
import time
from pathlib import Path

from moesim.errors import InputError, ResourceError
from moesim.profile.counts import summary
from moesim.profile.grid import FAMILIES
from moesim.profile.timing_journal import parse

DEFAULT_BUDGET_S = 480.0


def run(
    out: str | os.PathLike[str],
    device: str = "cuda",
    budget: float = DEFAULT_BUDGET_S,
    quick: bool = False,
    families: str | None = None,
    quiet: bool = False,
) -> str:
    """Run the profiler and return its summary; ``families`` are names with commas between.

    Raises InputError: a value cannot be used, or the table is another device's, driver's or grid's; ResourceError:
    PyTorch is not installed, the table cannot be written, or the device failed for good.
    """
    began = time.monotonic()  # loading PyTorch takes seconds and counts
    path = Path(out)
    if path.suffix != ".csv":
        raise InputError(f"{path.name!r} does not end in .csv", "--out")
    if not (budget > 0 and math.isfinite(budget)):
        raise InputError(f"the budget is {budget:g} s", "--budget", "give a positive number of seconds")
    wanted = FAMILIES if families is None else tuple(name.strip() for name in families.split(","))
    if unknown := [name for name in wanted if name not in FAMILIES]:
        raise InputError(f"no family {unknown[0]!r}", "--families", f"families are {', '.join(FAMILIES)}")
    try:
        from moesim.profile.timing_session import profile, to_stderr
    except ImportError as error:
        if error.name != "torch":
            raise
        raise ResourceError("moesim profile needs PyTorch: pip install 'moesim[gpu]'") from None
    ended, left = profile(path, device, budget, began, quick, wanted, (lambda line: None) if quiet else to_stderr)
    return summary(parse(path.read_bytes(), str(path)), path.name, ended, left)
