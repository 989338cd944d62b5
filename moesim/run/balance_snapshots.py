"""Expert loads at several steps of a training run: what the dynamics are fitted on and compared with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.balance import NO_LOSS, LossFactors
from moesim.dumps import RoutingTrace, read_routing
from moesim.errors import InputError
from moesim.recording_format import Recording, is_recording, read_recording, recording_path
from moesim.routing import RouterSpec, route

Floats = NDArray[np.float64]
Ids = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Snapshots:
    """A training run as its snapshots saw it.

    Attributes:
        name: of the run.
        steps: [S], ascending; those that a fit may use and those to come.
        counts: [S, L, E], selections.
        router: as trained; None where nothing says it.
        factors: of the losses it was trained with; ``bias_rate`` likewise.
        bias_spread: largest minus smallest bias, [S], mean over the layers; None without a bias.
        spread: [S], of a logit over tokens; None without logits.
        sequence_variance: variance of a sequence's load over its mean, last snapshot; ``domain_share``: the share of it
            that the domains make. None where nothing says it.
        sequences: behind a snapshot's counts, and ``batch_sequences`` in a training step; None where unknown.
        recipe: peak learning rate and steps of the run; None where unknown.
        experts: gives the experts [T, K] of the tokens kept at a snapshot, by layer; None where only counts are known.
    """

    name: str
    steps: NDArray[np.int64]
    counts: NDArray[np.int64]
    router: RouterSpec | None = None
    factors: LossFactors = NO_LOSS
    bias_rate: float = 0.0
    bias_spread: Floats | None = None
    spread: Floats | None = None
    sequence_variance: float | None = None
    domain_share: float | None = None
    sequences: int | None = None
    batch_sequences: int = 8
    recipe: tuple[float, int] | None = None
    experts: Callable[[int], Mapping[int, Ids]] | None = None

    @property
    def balanced(self) -> bool:
        """Whether something kept the load even."""
        return bool(self.bias_rate) or self.factors != NO_LOSS

    def max_over_mean(self) -> Floats:
        """Return max/mean of the loads, [S], mean over the layers."""
        return np.asarray((self.counts.max(axis=-1) / self.counts.mean(axis=-1)).mean(axis=-1), dtype=np.float64)


def read_snapshots(path: str, n_experts: int | None = None) -> Snapshots:
    """Read a recording of moesim, or recorded routing whose tokens or counts have steps, as FLAME-MoE's folders do.

    Raises:
        InputError: neither, or fewer than two steps.
    """
    file = Path(path)
    if not file.exists() or (file.suffix == ".npz" and is_recording(file)):
        found = _of_recording(read_recording(recording_path(path)))
    else:
        found = _of_trace(read_routing(path, n_experts=n_experts), path)
    empty = np.argwhere(found.counts.sum(axis=-1) == 0)
    if len(empty):
        step, layer = empty[0]
        raise InputError(f"step {found.steps[step]} has no selection in layer {layer} of those read", path,
                         "leave out what was not recorded")  # fmt: skip
    if len(found.steps) < 2:
        raise InputError(f"{len(found.steps)} training step", path, "snapshots are of at least two")
    return found


def _of_recording(recording: Recording) -> Snapshots:
    knobs: dict[str, Any] = dict(recording.router)
    spec = RouterSpec(knobs.pop("kind"), n_experts=recording.n_experts, **knobs)
    balancing, training = recording.meta["balancing"], recording.meta["training"]
    alpha: Mapping[str, float] = balancing.get("alpha", {})
    own = [float(alpha.get(name, 0.0)) for name in ("expert", "device", "communication", "sequence", "z")]
    factors = LossFactors(own[0], own[1], own[2], own[3], own[4])
    spread = [
        np.mean([recording.logits(layer, int(step))[: recording.early_logits.shape[2]].astype(float).std(axis=0).mean()
                 for layer in recording.layers])
        for step in recording.steps
    ]  # fmt: skip
    variance, share = _between_sequences(recording, spec)

    def experts(index: int) -> dict[int, Ids]:
        step = int(recording.steps[index])
        return {
            layer: route(recording.logits(layer, step), spec, recording.bias(layer, step)).expert_ids
            for layer in recording.layers
        }

    rate = float(balancing.get("bias_rate", 0.0))
    return Snapshots(
        name=recording.name,
        steps=recording.steps,
        counts=recording.counts,
        router=spec,
        factors=factors,
        bias_rate=rate,
        bias_spread=np.ptp(recording.biases, axis=-1).mean(axis=-1).astype(np.float64) if rate else None,
        spread=np.array(spread),
        sequence_variance=variance,
        domain_share=share,
        sequences=len(np.unique(recording.sequence[_seen(recording)])),
        batch_sequences=int(training.get("batch_sequences", 8)),
        recipe=(float(training["learning_rate"]), int(training["steps"])) if "learning_rate" in training else None,
        experts=experts,
    )


def _seen(recording: Recording) -> NDArray[np.bool_]:
    unseen = [recording.domain_names.index(name) for name in recording.held_out]
    return ~np.isin(recording.domain, unseen)


def _between_sequences(recording: Recording, spec: RouterSpec) -> tuple[float, float]:
    """Variance of the loads of sequences over their mean, without groups and bias, and the share between domains."""
    layer = max(recording.layers, key=lambda one: len(recording.last_logits[one]))
    logits, seen = recording.last_logits[layer], _seen(recording)
    n_experts, top_k = spec.n_experts, spec.top_k
    ids = route(logits, RouterSpec("v1", n_experts=n_experts, top_k=top_k)).expert_ids[seen[: len(logits)]]
    names, row, length = np.unique(
        recording.sequence[: len(logits)][seen[: len(logits)]], return_inverse=True, return_counts=True
    )
    cell = row[:, None] * n_experts + ids
    selected = np.bincount(cell.ravel(), minlength=len(names) * n_experts).reshape(len(names), n_experts)
    load: Floats = selected * (n_experts / top_k) / length[:, None]
    first = np.unique(row, return_index=True)[1]
    domain = recording.domain[: len(logits)][seen[: len(logits)]][first]
    within = np.mean(
        [load[domain == one].var(axis=0, ddof=1).sum() for one in np.unique(domain) if (domain == one).sum() > 1]
    )
    total = load.var(axis=0, ddof=1).sum()
    return float(total / load.mean(axis=0).sum()), float(np.clip(1.0 - within / total, 0.0, 1.0))


def _of_trace(trace: RoutingTrace, path: str) -> Snapshots:
    """The counts at each step that the tokens, or the counts, of recorded routing have."""
    if trace.counts is not None:
        return Snapshots(Path(path).name, np.arange(len(trace.counts)), trace.counts)
    if trace.step is None:
        raise InputError(
            "its tokens have no training steps", path, "give a recording, or iter_NNNN folders as FLAME-MoE"
        )
    if trace.ids is None:
        raise InputError("logits without the experts that they chose", path, "give a recording of moesim, or ids")
    steps, number = np.unique(trace.step, return_inverse=True)
    n_layers, n_experts = len(trace.layers), trace.n_experts
    counts = np.zeros((len(steps), n_layers, n_experts), np.int64)
    for layer in range(n_layers):
        chosen = trace.ids[layer] >= 0
        cell = (number[:, None] * n_experts + trace.ids[layer])[chosen]
        counts[:, layer] = np.bincount(cell, minlength=len(steps) * n_experts).reshape(len(steps), n_experts)
    ids: Ids = trace.ids
    router = RouterSpec("v1", n_experts=n_experts, top_k=ids.shape[2])

    def experts(index: int) -> dict[int, Ids]:
        return {layer: ids[row, number == index] for row, layer in enumerate(trace.layers)}

    return Snapshots(Path(path).name, steps.astype(np.int64), counts, router, experts=experts)
