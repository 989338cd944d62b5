"""Rows of the shipped kernel tables, worked out again from the folder of published rows.

Three kinds: rows that stand as published; masked rows of power-law loads, whose rows per expert are those of the mean
draw; and contiguous rows of the H100 and H200, where the collector timed host, expert MLP and the moving of rows of all
ranks together. There the time of one more expert at the same tokens is the difference of two rows, from which the rows'
own moving is taken at memory speed.
"""

import hashlib

import numpy as np

from moesim.compute.gpus import load_gpu
from moesim.compute.roofline import LAUNCH_S, STREAM_BANDWIDTH_SHARE
from moesim.compute.table_format import Row
from refit.draws import loads
from refit.timed_rows import read

V3 = (7168, 2048)
SETTLED = 4  # times the host's share, from which on it no longer hides work
LEAST_ROWS = 8192  # of a rank: at least twelve waves of tiles, so that experts cost in proportion
EXPONENTS = (0.6, 0.8, 1.01)
DRAWS, SEED = 2000, 0


def digits(value, n=5):
    return float(f"{value:.{n}g}")


def grouped_gemms(reference, gpu, layout):
    """Rows of InferSim: one grouped GEMM a row. Of two of one key the one with fewer padded rows stays."""
    rows = read(reference, f"grouped_{layout}", gpu)
    best = {}
    for i in range(len(rows)):
        n, k, nominal = (int(rows.ints[name][i]) for name in ("n", "k", "nominal"))
        own = rows.loads[i][rows.loads[i] > 0]
        if nominal < 2 and len(own) > 1:
            continue  # how many experts got a token is not in the file
        tokens = -(-own // 128) * 128 if layout == "contiguous" else own
        uneven = layout == "masked" and len(own) > 1
        row = Row(
            "expert_gemm", "fp8", (n, k), len(own), digits(tokens.mean(), 4), digits(rows.seconds[i]),
            "drawn" if uneven else "balanced", digits(own.max() / own.mean(), 3) if uneven else 1.0, layout=layout,
        )  # fmt: skip
        padding = tokens.sum() - own.sum()
        if row.key not in best or padding < best[row.key][0]:
            best[row.key] = padding, row
    return [row for _, row in best.values()]


def dense_gemms(reference, gpu):
    rows = read(reference, "dense_gemm", gpu)
    return [
        Row(
            "gemm",
            "fp8",
            (int(rows.ints["n"][i]), int(rows.ints["k"][i])),
            1,
            int(rows.loads[i, 0]),
            digits(rows.seconds[i]),
        )
        for i in range(len(rows))
    ]


def masked_mlps(reference, gpu, n_drawn=None):
    """Rows of aiconfigurator's generation tables: even loads as they stand, power-law loads by their mean draw.

    Of those that are drawn the first ``n_drawn`` alone, where it is given: drawing them all takes half a minute.
    """
    rows = read(reference, "deepep_generation", gpu)
    rng = np.random.default_rng(SEED)
    made = []
    left = np.inf if n_drawn is None else n_drawn
    for i in range(len(rows)):
        tokens, ranks, top_k, n_experts = (int(rows.ints[c][i]) for c in ("tokens", "ranks", "top_k", "experts"))
        local, exponent, seconds = n_experts // ranks, float(rows.exponent[i]), digits(rows.seconds[i])
        if exponent == 0 and tokens * top_k >= n_experts:
            made.append(Row("grouped_gemm", "fp8", V3, local, tokens * top_k / n_experts, seconds, layout="masked"))
        if exponent in EXPONENTS and local > 1 and left:
            drawn = loads(rng, tokens, n_experts, top_k, ranks, exponent, DRAWS)
            hit, totals = np.count_nonzero(drawn, axis=1), drawn.sum(axis=1)
            mean = float(totals.mean()) / local
            if mean < 8 or hit.mean() < 0.9 * local:
                continue
            ratio = float((drawn.max(axis=1) * hit / totals).mean())
            left -= 1
            error = float(totals.std() / totals.mean() / np.sqrt(5))  # a row is the mean of five draws
            made.append(
                Row("grouped_gemm", "fp8", V3, local, digits(mean, 4), seconds, f"power-law-{exponent:g}",
                    digits(ratio, 4), layout="masked", error=digits(error, 2))
            )  # fmt: skip
    return made


def contiguous_mlps(reference, gpu):
    """Rows of aiconfigurator's context tables, less what is not the experts' own."""
    rows = read(reference, "deepep_context", gpu)
    even = rows.where(rows.exponent == 0)
    per_expert = even.ints["tokens"] * even.ints["top_k"] // even.ints["experts"]
    local = even.ints["experts"] // even.ints["ranks"]
    host = even.seconds.min()
    made = []
    for tokens in np.unique(per_expert):
        here = (per_expert == tokens) & (even.seconds >= SETTLED * host)
        experts, seconds = local[here].astype(float), even.seconds[here]
        if len(experts) < 2:
            continue
        order = np.argsort(experts)
        experts, seconds = experts[order], seconds[order]
        steps = np.diff(seconds) / np.diff(experts)
        one = float((seconds[-1] - seconds[0]) / (experts[-1] - experts[0]))
        moving = 3.0 * V3[0] * tokens / (load_gpu(gpu).hbm_bandwidth * STREAM_BANDWIDTH_SHARE)
        spread = float((steps.max() - steps.min()) / one / 2) if len(steps) > 1 else 0.03
        error = digits(float(np.hypot(spread, moving / 2 / one)), 2)
        for number in (1, 2, 4, 8, 16, 32, 64, 128):
            if number * tokens >= LEAST_ROWS and number <= experts[-1]:
                time = digits(3 * LAUNCH_S + number * (one - moving))
                made.append(Row("grouped_gemm", "fp8", V3, number, int(tokens), time, layout="contiguous", error=error))
    return made


def attention(reference, gpu):
    """Rows of MLA, decode and prefill; kv_len counts the new token."""
    made = []
    kinds = {
        "mla_decode": ("mla_decode", ("h100", "h200")),
        "flashmla_decode": ("mla_decode", ("h800", "h20")),
        "mla_prefill": ("mla_prefill_absorbed", ("h100", "h200")),
        "mha_prefill": ("mla_prefill", ("h800",)),
    }
    for family, (kernel, gpus) in kinds.items():
        if gpu in gpus:
            rows = read(reference, family, gpu)
            made += [
                Row(kernel, rows.variant[i], (int(rows.ints["heads"][i]),), int(rows.ints["batch"][i]),
                    int(rows.ints["kv_len"][i]), digits(rows.seconds[i]))
                for i in range(len(rows))
            ]  # fmt: skip
    return made


def split_by_rule(family, shapes):
    """The shapes of ``family`` that the rule of `refit.kernel_check` holds out."""
    names = sorted(set(shapes))
    numbers = {name: tuple(int(part.partition("=")[2]) for part in name.split()) for name in names}
    wanted = (len(names) + 1) // 3
    fitted, held = set(names), set()
    for name in sorted(names, key=lambda name: hashlib.sha256(f"{family}/{name}".encode()).hexdigest()):
        rest = [numbers[other] for other in fitted - {name}]
        if len(held) < wanted and rest and _span(rest) == _span(list(numbers.values())):
            fitted.remove(name)
            held.add(name)
    return held


def _span(numbers):
    return [(min(axis), max(axis)) for axis in zip(*numbers, strict=True)]
