"""Training the small model under one of the published ways to balance its experts.

AdamW with warm-up and cosine decay on batches drawn evenly from the domains. After each step the bias of a V3
router moves by one fixed rate towards the mean load of the batch. Deterministic for equal steps, seed,
threads and device. Not modelled: data, tensor or expert parallel training.
"""

# Some functions of torch are untyped.
# mypy: allow-untyped-calls

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from moesim.record.model import LanguageModel, Sizes
from moesim.record.moe import V1, V2, V3, Router
from moesim.record.snapshot import Snapshot, take_snapshot
from moesim.record.text import Corpus, EvaluationText, training_batch
from moesim.record.torch_losses import Balancing, balance_losses

FINAL_LEARNING_RATE_SHARE = 0.1
GRADIENT_NORM = 1.0
WEIGHT_DECAY = 0.1
CURVE_POINTS = 100
CALIBRATION_STEPS = 12


@dataclass(frozen=True)
class Method:
    """A router, the number of shared experts that goes with it, and how its load is balanced."""

    router: Router
    n_shared: int
    balancing: Balancing


# V1's factors are those of the 145B model (DeepSeekMoE, section 4.1), V2's of section 2.2.3, V3's factor and
# rate of section 4.2. At this rate the bias needs some hundred steps to settle, a tenth of the usual run.
METHODS = {
    "none": Method(V1, 2, Balancing()),
    "v1": Method(V1, 2, Balancing({"expert": 0.003, "device": 0.05})),
    "v2": Method(V2, 2, Balancing({"expert": 0.003, "device": 0.05, "communication": 0.02})),
    "v3": Method(V3, 1, Balancing({"sequence": 1e-4}, bias_rate=0.001)),
}


@dataclass(frozen=True)
class Plan:
    """How long and on what to train."""

    steps: int
    seed: int = 0
    batch_sequences: int = 8
    learning_rate: float = 2e-3
    device: str = "cpu"


@dataclass
class Trained:
    """Snapshots of the run and points of its loss curve."""

    snapshots: list[Snapshot] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def snapshot_steps(steps: int, n_snapshots: int) -> list[int]:
    """Return the training steps at which to look: 0, then thirds of thirds of the run, and its end."""
    return sorted({0, *(round(steps / 3**power) for power in range(n_snapshots - 1))})


def learning_rate(step: int, plan: Plan) -> float:
    """Return the rate of a step (from 0): linear warm-up over a twentieth of the run, then cosine decay."""
    warm_up = max(1, plan.steps // 20)
    if step < warm_up:
        return plan.learning_rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, plan.steps - warm_up)
    share = FINAL_LEARNING_RATE_SHARE + (1 - FINAL_LEARNING_RATE_SHARE) * (1 + math.cos(math.pi * progress)) / 2
    return plan.learning_rate * share


def train(
    method: Method,
    sizes: Sizes,
    plan: Plan,
    corpus: Corpus,
    text: EvaluationText,
    looks: Sequence[int],
    progress: Callable[[str], None] | None = None,
) -> Trained:
    """Train a fresh model and take a snapshot at each step in ``looks`` (step s: after s updates)."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    model = LanguageModel(sizes, method.router).to(plan.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY, fused=True
    )
    trained = Trained()
    started = time.perf_counter()
    for step in range(plan.steps + 1):
        if step in looks:
            trained.snapshots.append(take_snapshot(model, text, step))
        if step == plan.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, plan)
        batch = training_batch(corpus, plan.batch_sequences, text.tokens.shape[1], rng)
        language, imbalance = training_step(model, optimizer, torch.from_numpy(batch).to(plan.device), method)
        if (step + 1) % max(1, plan.steps // CURVE_POINTS) == 0:
            point = {"step": step + 1, "language_loss": language, "expert_load_max_over_mean": imbalance}
            trained.curve.append({name: _rounded(value) for name, value in point.items()})
            if progress is not None:
                loads = " ".join(f"{value:.2f}" for value in imbalance)
                elapsed = time.perf_counter() - started
                progress(f"step {step + 1}/{plan.steps}  {elapsed:.0f} s  loss {language:.3f}  max/mean {loads}")
    trained.seconds = time.perf_counter() - started
    return trained


def training_step(
    model: LanguageModel, optimizer: torch.optim.Optimizer, batch: torch.Tensor, method: Method
) -> tuple[float, list[float]]:
    """Take one step on batch[sequences, length + 1]; return language loss and max/mean load per MoE layer."""
    batch = batch.long()
    out, routing = model(batch[:, :-1])
    language = functional.cross_entropy(out.flatten(0, 1), batch[:, 1:].flatten())
    total = language
    if method.balancing.alpha:
        for routed in routing.values():
            losses = balance_losses(routed, method.router, len(batch))
            total = total + sum(alpha * losses[name] for name, alpha in method.balancing.alpha.items())
    optimizer.zero_grad()
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
    optimizer.step()
    imbalance = []
    for layer, block in model.moe_layers().items():
        ids = routing[layer].ids
        if method.balancing.bias_rate:
            block.update_bias(ids, method.balancing.bias_rate)
        load = torch.bincount(ids.flatten(), minlength=len(block.bias)).double()
        imbalance.append((load.max() / load.mean()).item())
    return language.item(), imbalance


def steps_within(seconds: float, method: Method, sizes: Sizes, plan: Plan, corpus: Corpus, text: EvaluationText) -> int:
    """Return how many training steps take about ``seconds`` here, from a few steps of a model thrown away."""
    trial = Plan(1, plan.seed, plan.batch_sequences, plan.learning_rate, plan.device)
    train(method, sizes, trial, corpus, text, looks=())
    trial = Plan(CALIBRATION_STEPS, plan.seed, plan.batch_sequences, plan.learning_rate, plan.device)
    taken = train(method, sizes, trial, corpus, text, looks=()).seconds
    return max(1, int(seconds / (taken / CALIBRATION_STEPS)))


def to_stderr(line: str) -> None:
    """Show one line of progress."""
    print(line, file=sys.stderr, flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value
