"""The time of one GEMM over unevenly loaded experts, in plain Python: one tile shape after the other is tried."""

import math


def best_tile(expected_rows, columns, groups, sms, tile_rows, tile_columns):
    """Return (rows, columns, SMs) of the tile with the fewest waves, then the fullest last one (see tiles.py)."""
    best = None
    for height in tile_rows:
        of_this_height = None
        for width in sorted(tile_columns):
            if height > 128 and width > 128:
                continue
            blocks = math.ceil(expected_rows / height) * math.ceil(columns / width) * groups
            waves = math.ceil(blocks / sms)
            key = (waves, -(blocks - (waves - 1) * sms))
            if of_this_height is None or key < of_this_height[0]:
                of_this_height = (key, height, width, math.ceil(blocks / waves))
        if best is None or of_this_height[0] < best[0]:
            best = of_this_height
        elif of_this_height[0] == best[0]:
            _, height, width, _ = of_this_height
            if width > best[2] and width <= columns and height <= expected_rows:
                best = of_this_height
    return best[1:]


def gemm_seconds(loads, n, k, expected_rows, groups, tile_rows, tile_columns, peak, bandwidth, sms, c):
    """Price FP8 ``loads`` (rows of each expert) x [n, k] with the coefficients ``c``; without a row, the launch."""
    height, width, used = best_tile(expected_rows, n, groups, sms, tile_rows, tile_columns)
    tiles = sum(math.ceil(m / height) for m in loads) * math.ceil(n / width)
    waves = math.ceil(tiles / used)
    step = 2 * 128 * height * width / (c["e"] * peak / sms) * (1 + c["u"] * (128 % width != 0)) + c.get("s", 0.0)
    compute = waves * (k + c["K0"]) / 128 * step
    hit, rows = sum(m > 0 for m in loads), sum(loads)
    memory = (hit * n * k + rows * (k + 2 * n)) / (c["em"] * bandwidth)
    return c["t0"] + (compute ** c["p"] + memory ** c["p"]) ** (1 / c["p"])
