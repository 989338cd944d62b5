"""A recording made by rule: texts with topics, experts that answer to them, the interface of a real one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moesim.errors import InputError

SEQUENCE = 32
DOMAINS = ("prose", "code", "tables", "names")


def plausible_logits(tokens: int, n_experts: int, skew: float, seed: int = 0) -> np.ndarray:
    """Logits [tokens, experts] with topics per domain and sequence, frequent words and popular experts."""
    rng = np.random.default_rng(seed)
    width = 24
    weight = rng.normal(size=(width, n_experts)) + 0.5 * np.repeat(rng.normal(size=(width, 8)), n_experts // 8, axis=1)
    sequence = np.arange(tokens) // SEQUENCE
    topic = rng.normal(size=(len(DOMAINS), width))[sequence % len(DOMAINS)]
    text = rng.normal(size=(sequence[-1] + 1, width))[sequence]
    word = rng.normal(size=(256, width))[rng.zipf(1.3, tokens) % 256]
    hidden = 0.6 * topic + 0.4 * text + 0.9 * word + 0.5 * rng.normal(size=(tokens, width))
    logits = 1.5 / np.sqrt(width) * hidden @ weight + skew * rng.normal(size=n_experts)
    return logits.astype(np.float16)


@dataclass(frozen=True)
class MadeUpRecording:
    """What a batch asks of ``moesim.recording_format.Recording``, without the rest of it."""

    name: str
    n_experts: int
    layers: tuple[int, ...]
    sequence: np.ndarray
    domain: np.ndarray
    domain_names: tuple[str, ...]
    held_out: tuple[str, ...]
    snapshots: dict

    def logits(self, layer, step="last"):
        return self._snapshot(step)[layer][0]

    def bias(self, layer, step="last"):
        return self._snapshot(step)[layer][1]

    def _snapshot(self, step):
        if step not in self.snapshots:
            raise InputError(f"no snapshot of training step {step}", self.name)
        return self.snapshots[step]


def numpy_router(score: str, top_k: int, n_groups: int = 1, top_groups: int = 1, finest: int = 8) -> Callable:
    """Top-k of sigmoid or of plain logits, plus bias, within the best groups by their two best experts.

    Groups follow a contiguous placement on ``finest`` ranks.
    """

    def select(logits: np.ndarray, bias: np.ndarray) -> np.ndarray:
        n_experts = logits.shape[1]
        scores = (1 / (1 + np.exp(-logits)) if score == "sigmoid" else logits) + bias
        if top_groups < n_groups:
            ranks = np.array_split(np.arange(n_experts), min(finest, n_experts))
            group = np.repeat(np.arange(len(ranks)) * n_groups // len(ranks), [len(rank) for rank in ranks])
            first = np.flatnonzero(np.diff(group, prepend=-1))
            parts = np.split(scores, first[1:], axis=1)
            best = np.stack([np.partition(part, -2, axis=1)[:, -2:].sum(axis=1) for part in parts], axis=1)
            kept = np.argsort(-best, axis=1, kind="stable")[:, :top_groups]
            allowed = np.zeros((len(scores), n_groups), bool)
            np.put_along_axis(allowed, kept, True, axis=1)
            scores = np.where(allowed[:, group], scores, -np.inf)
        return np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k].astype(np.int32)

    return select
