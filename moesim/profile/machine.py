"""What the profile was measured on: the device's identity, and its clocks, power and temperature.

Settings are read, never touched. Readings come from nvidia-smi, which is no longer asked once it has failed.
"""

import hashlib
import platform
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from moesim.errors import InputError

_READINGS = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "power_w": "power.draw",
    "temperature_c": "temperature.gpu",
}
_SMI_SECONDS = 10
# A core's own caches; the last level is shared and not worth flushing for small shapes.
CPU_CACHE_BYTES = 2 << 20


class Machine:
    """The device that is measured. ``identity`` holds what must agree for two runs to share a table."""

    def __init__(self, device: str) -> None:
        """Look at ``device``, cpu or cuda. Raises InputError for one that is not here."""
        if device not in ("cpu", "cuda"):
            raise InputError(f"no device {device!r}", "--device", "devices are cpu, cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("no CUDA device here", "--device", "cpu always works, at small sizes")
        self.kind = device
        self.triton = device == "cuda" and find_spec("triton") is not None
        self.identity, self.facts = self._cuda() if device == "cuda" else self._cpu()
        self.name: str = self.identity["device"]
        self.cache_bytes: int = self.facts["l2_bytes"]

    def _cuda(self) -> tuple[dict[str, Any], dict[str, Any]]:
        properties = torch.cuda.get_device_properties(0)
        uuid = str(getattr(properties, "uuid", ""))
        self._uuid = f"GPU-{uuid.removeprefix('GPU-')}" if uuid else ""
        self._smi = shutil.which("nvidia-smi")
        driver = self._ask(["driver_version"])
        identity = self._software() | {
            "device": properties.name,
            "uuid_sha256": hashlib.sha256(self._uuid.encode()).hexdigest()[:16],
            "driver": driver[0] if driver else None,
            "cuda": torch.version.cuda,
        }
        facts = {
            "capability": f"{properties.major}.{properties.minor}",
            "sms": properties.multi_processor_count,
            "l2_bytes": properties.L2_cache_size,
            "memory_bytes": properties.total_memory,
        }
        return identity, facts

    def _cpu(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self._smi = None
        identity = self._software() | {
            "device": _cpu_name(),
            "uuid_sha256": None,
            "driver": None,
            "cuda": None,
            "threads": torch.get_num_threads(),
        }
        return identity, {"l2_bytes": CPU_CACHE_BYTES}

    def _software(self) -> dict[str, Any]:
        return {"torch": str(torch.__version__), "triton": _triton_version() if self.triton else None}

    def reading(self) -> dict[str, float | None] | None:
        """Return clocks, power and temperature now, None where they cannot be read."""
        values = self._ask(list(_READINGS.values()))
        return dict(zip(_READINGS, (_number(value) for value in values), strict=True)) if values else None

    def _ask(self, fields: list[str]) -> list[str] | None:
        if self._smi is None:
            return None
        command = [self._smi, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        command += [f"--id={self._uuid}"] if self._uuid else []
        try:
            done = subprocess.run(  # noqa: S603 - a fixed query to the tool found on the path
                command, capture_output=True, text=True, timeout=_SMI_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError):
            self._smi = None
            return None
        values = [value.strip() for value in done.stdout.strip().partition("\n")[0].split(",")]
        return values if len(values) == len(fields) else None

    def context_works(self) -> bool:
        """Is the device still usable after an error? A CUDA context does not survive an illegal access."""
        if self.kind == "cpu":
            return True
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return False
        torch.cuda.empty_cache()
        return True


def _triton_version() -> str:
    import triton  # its distribution has other names in some builds

    return str(triton.__version__)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
