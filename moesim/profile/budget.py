"""How long a grid takes, from a roofline and overheads: decides what fits, and is not a result.

Assumed, for a Hopper-class GPU: a call runs at 0.6 of the peak FLOP/s or 0.8 of the bandwidth and 3 us per launch;
inputs are drawn at 150 GB/s; a point costs 60 ms besides (allocation, reference, graph capture), the process 40 s
(imports, first kernels, Triton). Timing of one cache state takes two warm calls and as many samples as
`moesim.profile.timing` takes.
"""

from collections.abc import Iterable

from moesim.profile.points import Point
from moesim.profile.work import Peaks, Work, work

SAMPLE_S = 0.03  # what one cache state is sampled for, unless the fewest samples take longer
FEWEST, MOST = 7, 50
FLUSH_S = 50e-6
LONG_S = 1e-3  # a longer call is timed by itself, a shorter one in a chain of so long, or of so many
LONGEST_CHAIN = 20
CACHE_MULTIPLE = 4  # inputs that take turns fill the cache so many times over

COMPUTE_SHARE, MEMORY_SHARE, LAUNCH_S = 0.6, 0.8, 3e-6
DRAW_BYTES_PER_S = 150e9
POINT_S, START_S, ANCHORS_S = 0.06, 40.0, 2.0


def caches(point: Point, cache_bytes: int) -> tuple[str, ...]:
    """Return the cache states worth timing: hot only if half the cache holds what the kernel touches."""
    if point.kernel == "launch":
        return ("hot",)
    return ("cold", "hot") if 2 * work(point).moved <= cache_bytes else ("cold",)


def samples(call_s: float) -> int:
    """Return how many samples are taken of something that lasts ``call_s``."""
    return max(FEWEST, min(MOST, int(SAMPLE_S / max(call_s, 1e-9))))


def chain_length(call_s: float) -> int:
    """Return how many calls of ``call_s`` are timed in one go."""
    return max(1, min(LONGEST_CHAIN, int(LONG_S / max(call_s, 1e-9))))


def call_seconds(need: Work, peaks: Peaks) -> float:
    """Return the assumed time of one call."""
    floor = max(
        peaks.floor_us(need.flops, 0, need.dtype) / COMPUTE_SHARE, peaks.floor_us(0, need.moved, "") / MEMORY_SHARE
    )
    return 1e-6 * floor + LAUNCH_S * need.launches


def point_seconds(point: Point, peaks: Peaks, cache_bytes: int) -> float:
    """Return the assumed time of one point: inputs, reference, warm-up, samples of each cache state."""
    need = work(point)
    call = call_seconds(need, peaks)
    drawn = max(need.moved, min(CACHE_MULTIPLE * cache_bytes, 64 * need.moved))
    each = call * chain_length(call) + FLUSH_S
    timed = len(caches(point, cache_bytes)) * (2 * call + (samples(each) + 1) * each)
    return POINT_S + drawn / DRAW_BYTES_PER_S + 2 * call + timed


def total_seconds(points: Iterable[Point], peaks: Peaks, cache_bytes: int) -> float:
    """Return the assumed time of a run over ``points``, start and the three pairs of anchors included."""
    return START_S + 3 * ANCHORS_S + sum(point_seconds(point, peaks, cache_bytes) for point in points)
