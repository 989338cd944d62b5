"""Kernel times of a GPU, each with its source: measured, interpolated, fitted, extrapolated or estimated."""

from moesim.compute.gpus import Gpu, gpus, load_gpu
from moesim.compute.kernel_table import KernelTable
from moesim.compute.measured import load_measured
from moesim.compute.times import SOURCES, KernelTime, KernelTimes, Source

__all__ = [
    "SOURCES",
    "Gpu",
    "KernelTable",
    "KernelTime",
    "KernelTimes",
    "Source",
    "gpus",
    "load_gpu",
    "load_measured",
]
