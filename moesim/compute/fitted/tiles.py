"""How DeepGEMM cuts a GEMM into tiles and waves.

The output is cut into tiles of ``rows`` x ``columns``; each SM computes one tile after the other, so a kernel takes a
whole number of waves. The library picks the tile before it runs, from the number of rows it *expects* in each group:
the fewest waves, then the fullest last wave, then (among tiles of as many rows) the narrowest tile, and it starts no
more SMs than those waves need. What it then computes are the rows that are really there: a group with one row more
than expected may cost a whole wave. Which tiles a layout may take differs between releases: `Layout` holds those with
which the fitted rows agree best.

Not modelled: multicast between two SMs, the stages of the pipeline.

Source: DeepGEMM, csrc/jit_kernels/heuristics (August to October 2025).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moesim.compute.roofline import Floats

Ints = NDArray[np.int64]

SCALE_COLUMNS = 128  # columns that share one FP8 scale of the weights


@dataclass(frozen=True)
class Layout:
    """Tile sizes that a kernel may take; no tile exceeds 128 both ways."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @cached_property
    def tiles(self) -> tuple[Ints, Ints, tuple[slice, ...]]:
        """Return rows[tiles] and columns[tiles], narrowest first, and which of them are of each number of rows."""
        rows: list[int] = []
        columns: list[int] = []
        parts: list[slice] = []
        for height in self.rows:
            widths = [width for width in self.columns if height <= 128 or width <= 128]
            parts.append(slice(len(rows), len(rows) + len(widths)))
            rows += [height] * len(widths)
            columns += widths
        return np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64), tuple(parts)


NARROW = tuple(range(16, 129, 16))
WIDE = (*NARROW, 144, 160, 192)

MASKED = Layout((64, 128, 256), NARROW)
MASKED_LOW = Layout((64, 128), NARROW)
CONTIGUOUS = Layout((128,), WIDE)
CONTIGUOUS_NARROW = Layout((128,), NARROW)
DENSE = Layout((64, 128, 256), WIDE)


@dataclass(frozen=True)
class Cut:
    """The tile and the SMs that the library chose, [ranks] each."""

    rows: Ints
    columns: Ints
    sms: Ints

    def uneven(self) -> NDArray[np.bool_]:
        """Return where a tile is not a whole part of 128 columns: it needs two scales of the weights, [ranks]."""
        uneven: NDArray[np.bool_] = SCALE_COLUMNS % self.columns != 0
        return uneven


def choose(layout: Layout, expected_rows: Ints, columns: Ints, groups: Ints, sms: int) -> Cut:
    """Return the tile for ``groups[ranks]`` GEMMs of ``expected_rows[ranks]`` x ``columns[ranks]`` outputs each."""
    tile_rows, tile_columns, parts = layout.tiles
    down = -(-expected_rows[:, None] // np.array(layout.rows))
    across = -(-columns[:, None] // tile_columns) * groups[:, None]
    blocks = np.concatenate([down[:, [i]] * across[:, part] for i, part in enumerate(parts)], axis=1)
    waves = -(-blocks // sms)
    last = blocks - (waves - 1) * sms
    cost = waves * (sms + 1) - last  # last is at most sms: fewer waves always win
    ranks = np.arange(len(blocks))
    best = parts[0].start + np.argmin(cost[:, parts[0]], axis=1)  # the first of equals is the narrowest
    for height, part in zip(layout.rows[1:], parts[1:], strict=True):
        rival = part.start + np.argmin(cost[:, part], axis=1)
        tie = (tile_columns[rival] > tile_columns[best]) & (tile_columns[rival] <= columns) & (height <= expected_rows)
        gain = cost[ranks, best] - cost[ranks, rival]
        best = np.where((gain > 0) | ((gain == 0) & tie), rival, best)
    return Cut(
        tile_rows[best],
        tile_columns[best],
        np.asarray(-(-blocks[ranks, best] // np.maximum(waves[ranks, best], 1)), dtype=np.int64),
    )


def waves(cut: Cut, loads: Ints, columns: Ints) -> Floats:
    """Return the waves that ``loads[ranks, slots]`` rows really take, [ranks]; 0 without a row."""
    tiles = (-(-loads // cut.rows[:, None])).sum(axis=1) * -(-columns // cut.columns)
    counted: Floats = np.ceil(tiles / np.maximum(cut.sms, 1))
    return counted
