"""Peaks of the GPUs that kernels are priced on, read from ``data/gpus.yaml``.

A peak is what no kernel beats: dense tensor-core rates without sparsity and the nominal memory bandwidth.
Clocks under a power cap are not modelled; what a kernel reaches of the peak is the roofline's business.
"""

import difflib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from moesim.errors import InputError
from moesim.located_yaml import load_yaml

DATA = Path(__file__).resolve().parent.parent / "data"

Dtype = Literal["bf16", "fp8"]
BYTES_PER_ELEMENT: dict[str, int] = {"bf16": 2, "fp8": 1}


class Gpu(BaseModel):
    """One GPU model: dense peaks in FLOP/s, memory bandwidth in bytes/s, sizes in bytes, and who says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    bf16_flops: PositiveFloat
    fp8_flops: PositiveFloat
    hbm_bandwidth: PositiveFloat
    sms: PositiveInt
    l2_bytes: PositiveFloat
    memory_bytes: PositiveFloat
    source: str

    def flops(self, dtype: str) -> float:
        """Return the dense peak of ``dtype`` (bf16 or fp8) in FLOP/s."""
        return self.fp8_flops if dtype == "fp8" else self.bf16_flops


@cache
def gpus() -> dict[str, Gpu]:
    """Return every known GPU by its lower-case name."""
    return {name: Gpu(name=name, **fields) for name, fields in load_yaml(DATA / "gpus.yaml").data.items()}


def load_gpu(name: str) -> Gpu:
    """Return the GPU called ``name`` (any case). Raises InputError with the nearest known name."""
    known = gpus()
    found = known.get(name.lower())
    if found is None:
        raise InputError(f"unknown GPU {name!r}", fix=nearest(name.lower(), known))
    return found


def nearest(given: str, known: Iterable[str]) -> str:
    """Return a fix that names the word of ``known`` closest to ``given``, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"one of: {', '.join(names)}"
