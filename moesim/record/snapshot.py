"""What the model's routers say about the evaluation text at a training step, and the recording made of it."""

# Some functions of torch are untyped.
# mypy: allow-untyped-calls

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from moesim.record.model import LanguageModel
from moesim.record.moe import MoE, Routed, affinity
from moesim.record.text import DOMAINS, HELD_OUT, EvaluationText
from moesim.record.torch_losses import LOSS_NAMES, PUBLISHED_ALPHA, balance_losses
from moesim.recording_format import Recording

EVALUATION_CHUNK = 16


@dataclass(frozen=True)
class Snapshot:
    """One training step; axes as in ``moesim.recording_format`` without that of the snapshots."""

    step: int
    logits: dict[int, NDArray[np.float16]]
    domain_counts: NDArray[np.int64]
    bias: NDArray[np.float32]
    losses: NDArray[np.float64]
    language_loss: NDArray[np.float64]
    sequence_imbalance: NDArray[np.float64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Selections per layer and expert over the in-domain tokens, int64[L, E]."""
        inside = [name not in HELD_OUT for name in DOMAINS]
        counts: NDArray[np.int64] = self.domain_counts[:, inside].sum(axis=1)
        return counts


def take_snapshot(model: LanguageModel, text: EvaluationText, step: int) -> Snapshot:
    """Run the evaluation text through the model and keep what its routers decided."""
    with torch.no_grad():
        return _look(model, text, step)


def _look(model: LanguageModel, text: EvaluationText, step: int) -> Snapshot:
    model.eval()
    device = next(model.parameters()).device
    tokens = torch.from_numpy(text.tokens.astype(np.int64))
    language, chunks = [], []
    for part in tokens.split(EVALUATION_CHUNK):
        out, routing = model(part.to(device))
        loss = functional.cross_entropy(out[:, :-1].flatten(0, 1), part[:, 1:].flatten().to(device), reduction="none")
        language.append(loss.view(len(part), -1).mean(1).double().cpu())
        chunks.append({layer: (routed.logits.cpu(), routed.ids.cpu()) for layer, routed in routing.items()})
    model.train()
    layers = [
        _layer_figures(
            block,
            torch.cat([chunk[layer][0] for chunk in chunks]),
            torch.cat([chunk[layer][1] for chunk in chunks]),
            text,
        )
        for layer, block in model.moe_layers().items()
    ]
    per_sequence = torch.cat(language).numpy()
    return Snapshot(
        step=step,
        logits=dict(zip(model.moe_layers(), (figures[0] for figures in layers), strict=True)),
        domain_counts=np.stack([figures[1] for figures in layers]),
        bias=np.stack([block.bias.cpu().numpy().astype(np.float32) for block in model.moe_layers().values()]),
        losses=np.stack([figures[2] for figures in layers]),
        language_loss=np.array([per_sequence[text.domain == d].mean() for d in range(len(DOMAINS))]),
        sequence_imbalance=np.stack([figures[3] for figures in layers]),
    )


Figures = tuple[NDArray[np.float16], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _layer_figures(block: MoE, logits: Tensor, ids: Tensor, text: EvaluationText) -> Figures:
    """Return logits, counts[domains, E], losses (in domain, published factors), max/mean per sequence."""
    sequences, length = text.tokens.shape
    n_experts = logits.shape[1]
    which = torch.arange(sequences).repeat_interleave(length * ids.shape[1])
    selected = torch.bincount(which * n_experts + ids.flatten(), minlength=sequences * n_experts)
    load = selected.numpy().reshape(sequences, n_experts)
    domain_counts = np.stack([load[text.domain == d].sum(axis=0) for d in range(len(DOMAINS))])

    inside = np.array([DOMAINS[d] not in HELD_OUT for d in text.domain])
    keep = torch.from_numpy(inside).repeat_interleave(length)
    scores = affinity(logits[keep], block.router)
    losses = balance_losses(Routed(logits[keep], scores, ids[keep]), block.router, int(inside.sum()))
    values = np.array([PUBLISHED_ALPHA[name] * losses[name].item() for name in LOSS_NAMES])
    return logits.half().numpy(), domain_counts, values, load.max(axis=1) / load.mean(axis=1)


def assemble(
    meta: dict[str, Any],
    snapshots: Sequence[Snapshot],
    text: EvaluationText,
    main_layer: int,
    short: int,
    early: int,
) -> Recording:
    """Make the recording: all tokens of ``main_layer``, ``short`` of the others, ``early`` at earlier steps."""
    sequences, length = text.tokens.shape
    last = snapshots[-1]
    layers = list(last.logits)
    early_logits = [np.stack([taken.logits[layer][:early] for layer in layers]) for taken in snapshots[:-1]]
    return Recording(
        meta=meta,
        sequence=np.repeat(np.arange(sequences, dtype=np.int32), length),
        domain=np.repeat(text.domain, length),
        token_bytes=text.tokens.flatten(),
        last_logits={
            layer: last.logits[layer] if layer == main_layer else last.logits[layer][:short] for layer in layers
        },
        steps=np.array([taken.step for taken in snapshots], np.int64),
        early_logits=np.stack(early_logits),
        counts=np.stack([taken.counts for taken in snapshots]),
        domain_counts=np.stack([taken.domain_counts for taken in snapshots]),
        biases=np.stack([taken.bias for taken in snapshots]),
        losses=np.stack([taken.losses for taken in snapshots]),
        language_loss=np.stack([taken.language_loss for taken in snapshots]),
        sequence_imbalance=np.stack([taken.sequence_imbalance for taken in snapshots]),
    )
