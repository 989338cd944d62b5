"""Balance over training: ``python -m benchmarks.balance [--steps N]``, processor seconds.

The three losses of V2 with their gradient by the experts' embeddings, one by one and in one pass, in alternation; and a
training run of 256 experts on 64 GPUs, 16,384 tokens a step, every tenth step through the layer. A run of fewer steps
than 1,000 is written as what it is.
"""

from __future__ import annotations

import sys

import numpy as np

import moesim
from benchmarks.machine import Row, against, machine, median_cpu, write
from moesim.balance import (
    LossFactors,
    Text,
    communication_loss,
    device_loss,
    embedding_gradient,
    expert_loss,
    shipped_constants,
)
from moesim.layer import build_parts
from moesim.routing import RouterSpec, route
from moesim.run.balance_study import methods_of, study_method

TOKENS, EXPERTS, WIDTH = 16_384, 256, 25
FACTORS = LossFactors(0.003, 0.05, 0.02, 0.0, 0.0)


def losses() -> Row:
    """Three losses with their gradient by the embeddings."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((TOKENS, WIDTH))
    logits = (tokens @ (0.2 * rng.standard_normal((EXPERTS, WIDTH))).T).astype(np.float32)
    spec = RouterSpec("v2", EXPERTS, 8, 8, 4)
    device, ids = np.arange(EXPERTS) // 32, route(logits, spec).expert_ids

    def together() -> None:
        embedding_gradient(tokens, logits, ids, spec, device, FACTORS)

    def one_by_one() -> None:
        grad = expert_loss(logits, ids, spec, alpha=0.003).grad
        for loss, alpha in ((device_loss, 0.05), (communication_loss, 0.02)):
            grad = grad + loss(logits, ids, spec, device, alpha=alpha).grad
        grad.T @ tokens

    together()
    taken = np.median([[median_cpu(run, 1) for run in (together, one_by_one)] for _ in range(9)], axis=0)
    return against("three losses by the embeddings", TOKENS, taken[0], "loss by loss", taken[1])


def training(steps: int) -> Row:
    """V2 on the scenario's 256 experts and 64 GPUs."""
    parts = build_parts(moesim.load_scenario("deepseek-v3-prefill-ep64"))
    method = methods_of(parts, ["v2"], False, False)[0]
    text = Text(TOKENS // 256, 256)
    study_method(parts, method, shipped_constants(), text, 1, 10)
    taken = median_cpu(lambda: study_method(parts, method, shipped_constants(), text, steps, 10), 1)
    return Row(f"{steps:,} training steps, every tenth on the clock", steps, taken)


if __name__ == "__main__":
    count = int(sys.argv[sys.argv.index("--steps") + 1]) if "--steps" in sys.argv else 1000
    write("balance", [losses(), training(count)], machine())
