"""The columns of a profile: one row per kernel, shape and cache state, the same for every GPU.

A row is written once its kernel was checked and timed, and says so in ``status``. Numbers that do not apply are
empty. Times are microseconds, sizes bytes, rates 1e12 FLOP/s and 1e9 bytes/s. What each column, implementation and
kernel is stands in ``data/profile_words.csv``.
"""

import csv
from pathlib import Path

SCHEMA_VERSION = 1

DATA = Path(__file__).resolve().parent.parent / "data"
with (DATA / "profile_words.csv").open(encoding="utf-8", newline="") as _lines:
    _WORDS = list(csv.DictReader(_lines))
DESCRIPTION, IMPLEMENTATIONS, KERNELS = (
    {row["name"]: row["meaning"] for row in _WORDS if row["of"] == of} for of in ("column", "impl", "kernel")
)
COLUMNS = tuple(DESCRIPTION)

# These name a row: no two rows of a file agree in all of them.
KEY_COLUMNS = (
    "kernel", "impl", "dtype", "variant", "tokens", "tokens_per_expert", "experts_local", "hidden", "inter", "topk",
    "load_shape", "cache", "batch", "kv_len", "heads",
)  # fmt: skip
