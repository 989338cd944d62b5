"""Routers and counting against torch.topk, numpy and the time to merely read the logits.

    python -m benchmarks.routers            # PyTorch is used where it is installed

DeepSeek-V3's router: sigmoid, the four best of eight groups of 32 by their two best scores, top 8, normalised gates,
and how often each expert was taken. Every implementation reads the same array in the same process, in turns.
"""

import argparse
import os
import statistics
import time
from importlib.metadata import version

import numba
import numpy as np

from benchmarks.machine import Row, machine, write
from moesim.balance import expert_load
from moesim.routing import RouterSpec, route, route_and_measure

# PyTorch's threads would go on spinning into whoever's turn comes next.
os.environ |= {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}

EXPERTS, TOP_K, GROUPS, TOP_GROUPS = 256, 8, 8, 4
V3 = RouterSpec("v3", EXPERTS, TOP_K, GROUPS, TOP_GROUPS)
V1, FREE = RouterSpec("v1", EXPERTS, TOP_K), RouterSpec("v3", EXPERTS, TOP_K)


@numba.njit(parallel=True, fastmath=True)
def read(values):
    """Sum an array on all cores: what it takes to see every number once."""
    total = np.float32(0)
    for i in numba.prange(values.size):
        total += values[i]
    return total


def by_numpy(logits):
    scores = 1 / (1 + np.exp(-logits))
    in_groups = scores.reshape(len(scores), GROUPS, -1)
    value = np.partition(in_groups, -2, axis=2)[:, :, -2:].sum(axis=2)
    kept = np.argpartition(-value, TOP_GROUPS - 1, axis=1)[:, :TOP_GROUPS]
    mask = np.zeros(value.shape, bool)
    np.put_along_axis(mask, kept, True, axis=1)
    masked = np.where(np.repeat(mask, EXPERTS // GROUPS, axis=1), scores, -1)
    ids = np.argpartition(-masked, TOP_K - 1, axis=1)[:, :TOP_K]
    gates = np.take_along_axis(scores, ids, axis=1)
    return ids, gates / gates.sum(axis=1, keepdims=True), np.bincount(ids.ravel(), minlength=EXPERTS)


def torch_router(logits):
    """The router of DeepSeek-V3's published inference code, in the same words of PyTorch; None without it."""
    try:
        import torch
    except ImportError:
        return None
    tensor = torch.from_numpy(logits)

    def run():
        scores = tensor.sigmoid()
        in_groups = scores.view(-1, GROUPS, EXPERTS // GROUPS)
        kept = in_groups.topk(2, dim=-1)[0].sum(dim=-1).topk(TOP_GROUPS, dim=-1)[1]
        left_out = torch.ones(len(scores), GROUPS, dtype=torch.bool).scatter_(1, kept, False)
        masked = in_groups.masked_fill(left_out.unsqueeze(-1), float("-inf")).flatten(1)
        ids = masked.topk(TOP_K, dim=-1)[1]
        gates = scores.gather(1, ids)
        return ids, gates / gates.sum(dim=-1, keepdim=True), torch.bincount(ids.flatten(), minlength=EXPERTS)

    return run


def in_turns(jobs, rounds):
    """Seconds of each job in each round; the jobs take turns, so that what else the machine does hits all alike."""
    for job in jobs.values():
        job()
    seconds = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def counted(logits, spec, bias=None, **options):
    """Route, and count how often each expert was taken."""
    routing = route(logits, spec, bias, **options)
    return routing, expert_load(routing.expert_ids, EXPERTS)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    rng, n = np.random.default_rng(0), arguments.tokens
    logits = rng.standard_normal((n, EXPERTS), dtype=np.float32)
    half, brain = logits.astype(np.float16), (logits.view(np.uint32) >> 16).astype(np.uint16)
    bias = rng.normal(size=EXPERTS) * 0.01
    device, sequence = np.arange(EXPERTS) // 32, np.arange(n) // 4096
    jobs = {
        "read": lambda: read(logits.ravel()),
        "numpy": lambda: by_numpy(logits),
        "v3": lambda: counted(logits, V3),
        "measured": lambda: route_and_measure(logits, V3, device_of_expert=device, sequence_id=sequence),
        "biased": lambda: counted(logits, V3, bias),
        "free": lambda: counted(logits, FREE),
        "v1": lambda: counted(logits, V1),
        "float16": lambda: counted(half, V3),
        "bfloat16": lambda: counted(brain, V3, bfloat16=True),
    }
    if (by_torch := torch_router(logits)) is not None:
        jobs["torch"] = by_torch
        assert (np.sort(by_torch()[0].numpy()) == np.sort(route(logits, V3).expert_ids)).mean() > 0.9999
    seconds = in_turns(jobs, arguments.rounds)

    def compared(case, name, peer, words=None):
        ratios = [theirs / own for theirs, own in zip(seconds[peer], seconds[name], strict=True)]
        medians = statistics.median(seconds[name]), words or peer, statistics.median(seconds[peer])
        return Row(case, n, *medians, ratio=statistics.median(ratios))

    case, reading = "V3, top 8 in 4 of 8 groups of 256, counted", "reading the logits"
    rows = [compared(case, "v3", peer) for peer in ("torch", "numpy") if peer in seconds]
    rows.append(compared(case, "v3", "read", reading))
    rows.append(compared("the same without groups", "free", "read", reading))
    rows.append(compared("the same with the losses' statistics", "measured", "v3", "selection alone"))
    rows.append(compared("the same with a bias", "biased", "v3", "selection alone"))
    rows.append(compared("the same from float16", "float16", "v3", "from float32"))
    rows.append(compared("the same from bfloat16", "bfloat16", "v3", "from float32"))
    rows.append(compared("V1, softmax, top 8 of 256, counted", "v1", "read", reading))
    parts = {tokens: logits[:tokens] for tokens in (n // 4, n // 2, n)}
    doubled = in_turns({tokens: lambda part=part: route_and_measure(part, V3) for tokens, part in parts.items()}, 5)
    for tokens, taken in doubled.items():
        rows.append(Row("V3 with statistics, tokens doubled", tokens, statistics.median(taken)))
    versions = {} if "torch" not in jobs else {"torch": version("torch")}
    write("routers", rows, machine(**versions))


if __name__ == "__main__":
    main()
