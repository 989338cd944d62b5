"""A kernel's time and rate over its size as one picture: measured points, the price and its band, the floor."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.report.palette import GRID, MARK, series_colour
from moesim.report.quantities import Floats
from moesim.report.static import drawn_files, plain_text

# Over more than that, powers of ten are numbers enough on an axis.
_FEW_DECADES = 3e3


@dataclass(frozen=True)
class PricedCurve:
    """One line: ``x[points]``, its seconds with the band ``low`` to ``high`` (NaN: unknown), and its name.

    ``outside[points]`` is True where nothing was measured near, drawn with dashes.
    """

    label: str
    x: Floats
    seconds: Floats
    low: Floats
    high: Floats
    outside: NDArray[np.bool_]


@dataclass(frozen=True)
class KernelPicture:
    """What is drawn. ``floor`` and ``flops`` are over ``x``; ``points`` are (x, seconds) by name."""

    title: str
    subtitle: str
    x_label: str
    x: Floats
    floor: Floats
    flops: Floats
    curves: tuple[PricedCurve, ...]
    points: Mapping[str, tuple[Floats, Floats]]


def kernel_figure(picture: KernelPicture) -> dict[str, bytes]:
    """Draw the picture as ``svg`` and ``png``, the same bytes for the same numbers."""
    files = drawn_files("kernel", partial(_draw, picture=picture))
    return {name.rpartition(".")[2]: data for name, data in files.items()}


def _draw(figure: Any, picture: KernelPicture) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure.set_size_inches(8, 6.4)
    time, rate = figure.subplots(2, 1, sharex=True)
    figure.suptitle(plain_text(picture.title), x=0.01, ha="left", fontsize=11)
    time.set_title(plain_text(picture.subtitle), fontsize=9)
    time.set_ylabel("time in us")
    rate.set_ylabel("TFLOP/s")
    rate.set_xlabel(plain_text(picture.x_label))
    computes = bool(picture.flops.any())
    for axes, of_time in ((time, True), (rate, False)):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        if of_time or computes:
            _fill(axes, picture, of_time)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=12))
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < _FEW_DECADES else (1.0,)))
    if not computes:
        rate.set_yscale("linear")
        rate.text(0.5, 0.5, "computes nothing", transform=rate.transAxes, ha="center", color=MARK)
    time.legend(fontsize=8, loc="best")


def _fill(axes: Any, picture: KernelPicture, of_time: bool) -> None:
    def shown(x: Floats, seconds: Floats) -> Floats:
        """Seconds as microseconds, or as the rate of the FLOPs at ``x``."""
        if of_time:
            return seconds * 1e6
        flops = np.exp(np.interp(np.log(x), np.log(picture.x), np.log(picture.flops)))
        return np.asarray(flops / seconds / 1e12)

    floor = shown(picture.x, picture.floor)
    axes.plot(picture.x, floor, color=MARK, linestyle=(0, (4, 3)), linewidth=1.2, label="floor: the GPU's peaks")
    for position, curve in enumerate(picture.curves):
        colour = series_colour(position)
        known = np.isfinite(curve.low)
        ends = (shown(curve.x, curve.low), shown(curve.x, curve.high))
        axes.fill_between(curve.x, *ends, where=known, color=colour, alpha=0.2, linewidth=0)
        line = shown(curve.x, curve.seconds)
        # Dashes start at the last point that is backed, so that the line has no gap.
        near = np.convolve(curve.outside, [True, True, True], mode="same") > 0
        named = {"color": colour, "linewidth": 1.6}
        axes.plot(curve.x, np.where(near, line, np.nan), linestyle="--", **named)
        axes.plot(curve.x, np.where(curve.outside, np.nan, line), label=plain_text(curve.label), **named)
    for position, (name, (x, seconds)) in enumerate(picture.points.items()):
        style = {"marker": ("o", "^")[position % 2], "markersize": 4.5, "linestyle": "none", "markerfacecolor": "none"}
        axes.plot(x, shown(x, seconds), color="black", label=plain_text(name), **style)
