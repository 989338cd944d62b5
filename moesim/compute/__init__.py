"""Kernel times of a GPU, each with its source: measured, interpolated, fitted, extrapolated or estimated."""

from moesim.compute.gpus import Gpu, gpus, load_gpu
from moesim.compute.grouped_attention import grouped_attention, roofline_times
from moesim.compute.kernel_table import KernelTable
from moesim.compute.measured import load_measured
from moesim.compute.roofline import STREAM_BANDWIDTH_SHARE, Work
from moesim.compute.step_constants import (
    StepConstants,
    free_constants,
    most_flops,
    release_factor,
    step_constants,
)
from moesim.compute.times import SOURCES, KernelTime, KernelTimes, Source

__all__ = [
    "SOURCES",
    "STREAM_BANDWIDTH_SHARE",
    "Gpu",
    "KernelTable",
    "KernelTime",
    "KernelTimes",
    "Source",
    "StepConstants",
    "Work",
    "free_constants",
    "gpus",
    "grouped_attention",
    "load_gpu",
    "load_measured",
    "most_flops",
    "release_factor",
    "roofline_times",
    "step_constants",
]
