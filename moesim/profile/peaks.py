"""Nominal peaks of the GPUs that ``data/gpus.yaml`` knows, read without a YAML library.

The file is two levels of ``key: value``; only its numbers are wanted here, so a line at a time will do.
"""

import re
from pathlib import Path
from typing import NamedTuple

_DATA = Path(__file__).resolve().parent.parent / "data" / "gpus.yaml"
_NAME = re.compile(r"(\w+):\s*$")
_NUMBER = re.compile(r"  (\w+): ([0-9.e+]+)\s*$")
# SXM parts alone: the PCIe and NVL cards of the same name have other peaks.
_DEVICE = re.compile(r"NVIDIA (H100|H800|H200|H20|B200|B300)(?: 80GB HBM3| SXM\d?\b.*)?", re.IGNORECASE)


class Peaks(NamedTuple):
    """Dense FLOP/s of the tensor cores and bytes/s of the memory."""

    bf16_flops: float
    fp8_flops: float
    hbm_bandwidth: float

    def floor_us(self, flops: float, moved: float, dtype: str) -> float:
        """Return max(flops / peak, bytes / bandwidth) in microseconds."""
        peak = self.fp8_flops if dtype == "fp8" else self.bf16_flops
        return 1e6 * max(flops / peak, moved / self.hbm_bandwidth)


def peaks_of(device: str) -> Peaks | None:
    """Return the peaks of the device that calls itself ``device``, None where they are not known."""
    match = _DEVICE.fullmatch(device.strip())
    if match is None:
        return None
    numbers: dict[str, dict[str, float]] = {}
    name = ""
    for line in _DATA.read_text(encoding="utf-8").splitlines():
        if head := _NAME.match(line):
            name = head[1]
            numbers[name] = {}
        elif (pair := _NUMBER.match(line)) and name:
            numbers[name][pair[1]] = float(pair[2])
    return Peaks(*(numbers[match[1].lower()][field] for field in Peaks._fields))
