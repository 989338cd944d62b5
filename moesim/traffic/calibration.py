"""Rates and set-up times of the all-to-all libraries, per GPU: few constants, each with where it comes from.

A rate is what one GPU's port sustains on the wire; an algorithm's efficiency is that rate over the port's peak, so a
faster or slower port keeps the efficiency. The set-up time contains the latency of the routes: what is added to a
route's own latency is ``max(0, setup - longest route latency)``.

These are uncalibrated defaults: fits of the published DeepEP tables (H800) and nccl-tests figures. They say nothing of
a particular cluster.
"""

import math
from dataclasses import dataclass

from moesim.errors import InputError

ALGORITHMS = ("nccl-direct", "deepep-normal", "deepep-low-latency")

_US = 1e-6
_GB = 1e9


@dataclass(frozen=True)
class Calibration:
    """Constants of one all-to-all algorithm on one GPU.

    Rates in bytes/s on the wire, per GPU and direction; times in seconds; ``sms`` is what the communication kernel
    holds while it runs.
    """

    algorithm: str
    gpu: str
    nvlink_rate: float
    nic_rate: float
    nvlink_peak: float
    nic_peak: float
    setup_intra_node_s: float
    setup_inter_node_s: float
    layout_s: float
    cpu_sync_s: float
    sms: int
    total_sms: int
    source: str

    def efficiency(self, link_class: str) -> float:
        """Share of a link's peak that the algorithm reaches.

        Every class but NVLink is crossed by the NIC's transport and takes the NIC's.
        """
        if link_class == "nvlink":
            return self.nvlink_rate / self.nvlink_peak
        return self.nic_rate / self.nic_peak

    def notify_s(self, n_nodes: int) -> float:
        """Time of normal mode's exchange of counts, its barriers included: 32 us at two nodes, 55 us from four on."""
        if self.layout_s == 0:
            return 0.0
        steps = min(max(math.log2(max(n_nodes, 2) / 2), 0.0), 1.0)
        return (32 + 23 * steps) * _US


# (NVLink peak, NIC peak) in GB/s per direction and SMs of the GPU; data sheets.
_GPUS = {"h800": (200, 50, 132), "h100": (450, 50, 132), "h200": (450, 50, 132), "h20": (450, 50, 78)}

# GB/s on NVLink and NIC. H800: fits of DeepEP's README tables, max error 4.6 % (normal) and 5.3 % (low latency);
# NCCL: nccl-tests reports of about 160 of 200 GB/s NVLink and "48-49" GB/s per ConnectX-7 port.
_RATES = {
    ("deepep-normal", "h800"): (128, 43),
    ("deepep-low-latency", "h800"): (135, 42),
    ("nccl-direct", "h800"): (160, 48),
    ("deepep-normal", "hopper"): (290, 45),
    ("deepep-low-latency", "hopper"): (290, 45),
    ("nccl-direct", "hopper"): (370, 48),
}

# SMs that a kernel holds: DeepEP's tests use 24; NCCL runs one block per channel, 16 by default inside a node;
# low-latency mode with its receive hook holds none while the bytes are on the wire.
_SMS = {"deepep-normal": 24, "nccl-direct": 16, "deepep-low-latency": 0}


def calibration(algorithm: str, gpu: str, wire_over_published: float = 1.0, sms: int | None = None) -> Calibration:
    """Return the constants of an algorithm on a GPU.

    Args:
        algorithm: one of ``ALGORITHMS``.
        gpu: ``h800``, ``h100``, ``h200`` or ``h20``; another GPU takes H100's constants and says so in ``source``.
        wire_over_published: bytes on the wire over the bytes that the published rate counts; the rate is stored for
            wire bytes.
        sms: SMs of the communication kernel, where the user set them.

    Raises:
        InputError: unknown algorithm.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(f"unknown all-to-all algorithm {algorithm!r}", fix=f"use one of {', '.join(ALGORITHMS)}")
    known = gpu in _GPUS
    nvlink_peak, nic_peak, total_sms = _GPUS[gpu if known else "h100"]
    nvlink, nic = _RATES[(algorithm, gpu if gpu == "h800" else "hopper")]
    logical = algorithm == "deepep-normal"
    scale = wire_over_published if logical else 1.0
    setup = {"nccl-direct": (24, 100), "deepep-normal": (0, 0), "deepep-low-latency": (24, 24)}[algorithm]
    source = "fit of DeepEP's published H800 tables" if "deepep" in algorithm else "nccl-tests reports"
    if gpu != "h800":
        source += ", rates of H100-class reports" if known else f"; no constants for {gpu}: H100's are used"
    return Calibration(
        algorithm=algorithm,
        gpu=gpu,
        nvlink_rate=nvlink * _GB * scale,
        nic_rate=nic * _GB * scale,
        nvlink_peak=nvlink_peak * _GB,
        nic_peak=nic_peak * _GB,
        setup_intra_node_s=setup[0] * _US,
        setup_inter_node_s=setup[1] * _US,
        layout_s=50 * _US if logical else 0.0,
        cpu_sync_s=100 * _US if logical else 0.0,
        sms=_SMS[algorithm] if sms is None else sms,
        total_sms=total_sms,
        source=source,
    )
