"""The time of one GEMM over unevenly loaded experts, in plain Python, one expert after the other."""

import itertools
import math


def published_gemm_seconds(rows, points, launch=2.5e-6):
    """Price ``rows`` (one number per expert) from ``points`` [(rows, groups, seconds, memory_seconds)].

    Each point's time is launch + groups x expert; an expert takes the log-log interpolated time at its rows
    rounded up to whole tiles; the launch is the mean over experts.
    """
    curve = []
    for at, groups, seconds, memory in sorted(points):
        expert = max((seconds - launch) / groups, min(memory, seconds / groups))
        curve.append((at, expert, seconds - groups * expert))
    total, launches = 0.0, []
    for m in rows:
        if m == 0:
            continue
        m = 64 if m <= 64 else math.ceil(m / 128) * 128
        for (x0, y0, l0), (x1, y1, l1) in itertools.pairwise(curve):
            if x0 <= m <= x1:
                w = math.log(m / x0) / math.log(x1 / x0)
                total += math.exp((1 - w) * math.log(y0) + w * math.log(y1))
                launches.append((1 - w) * l0 + w * l1)
                break
        else:
            raise ValueError(m)
    return total + (sum(launches) / len(launches) if launches else launch)


def roofline_gemm_seconds(rows, n, k, peak, bandwidth, bytes_per_element):
    """Price ``rows`` by the roofline formula, expert by expert."""
    total = 2.5e-6
    for m in rows:
        if m:
            compute = 2 * math.ceil(m / 128) * 128 * math.ceil(n / 128) * 128 * (k + 300) / (peak * 0.72)
            memory = (n * k * bytes_per_element + m * (k * bytes_per_element + 2 * n)) / (bandwidth * 0.96)
            total += math.sqrt(compute**2 + memory**2)
    return total
