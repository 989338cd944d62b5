"""The scenario's workload section as batches of tokens, and the training history that comes with a recording."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.balance import imbalance
from moesim.errors import InputError
from moesim.layer.parts import Parts
from moesim.recording_format import Recording, is_recording, read_recording, recording_path
from moesim.results import TableBuilder, nulls
from moesim.routing import RouterSpec, route
from moesim.scenario import RecordingSource
from moesim.workload import Batch, counts_batch, expert_ids_batch, logits_batch, recorded_batch, synthetic_batch

_WORKLOAD_STAGE, _POPULARITY_STAGE = 1, 5


@dataclass(frozen=True)
class Workload:
    """A scenario's tokens: where they come from. ``recording`` is None unless it is one of moesim's own format."""

    parts: Parts
    recording: Recording | None

    def batch(self, step: int) -> Batch:
        """Draw the batch of a simulated step, the same for the same seed and step."""
        parts, workload = self.parts, self.parts.workload
        seed = np.random.SeedSequence(parts.seed, spawn_key=(_WORKLOAD_STAGE, step))
        common: dict[str, Any] = {
            "n_ranks": parts.fabric.n_ranks,
            "rng": np.random.default_rng(seed),
            "assign": workload.assign,
            "n_experts": parts.router.n_experts,
        }
        if workload.tokens_per_rank is not None:
            common["tokens_per_rank"] = workload.tokens_per_rank
        if workload.recording is not None:
            return self._recorded(workload.recording, workload.domains, common)
        if workload.synthetic is not None:
            return synthetic_batch(
                layers=range(workload.layers_simulated or 1),
                top_k=parts.router.top_k,
                popularity_rng=parts.rng(_POPULARITY_STAGE),
                **workload.synthetic.model_dump(),
                **common,
            )
        if workload.expert_ids is not None:
            batch = expert_ids_batch(workload.expert_ids, **common)
            _check_width(parts, batch)
            return batch
        batch = counts_batch(str(workload.counts), top_k=parts.router.top_k, **common)
        return replace(batch, estimated=(*batch.estimated, *_limit_not_applied(parts)))

    def _recorded(
        self, source: RecordingSource, domains: str | tuple[str, ...] | None, common: dict[str, Any]
    ) -> Batch:
        parts, recording = self.parts, self.recording
        if recording is None:
            batch = logits_batch(source.name, layers=source.layers, **common)
            if parts.router.kind == "v3" and parts.bias == "recorded":
                batch = replace(batch, notes=(*batch.notes, "these logits have no bias: none is used"))
            return batch
        counts = (parts.fabric.n_ranks, parts.fabric.n_nodes, parts.router.n_groups)
        return recorded_batch(
            recording,
            layers=source.layers or recording.layers,
            step=source.step,
            domains=recording.domain_names if domains == "all" else domains,
            select=lambda logits, bias: route(logits, _of_width(parts.router, logits.shape[1]), bias).expert_ids,
            group_counts=counts,
            **common,
        )


def open_workload(parts: Parts) -> Workload:
    """Open what the workload section names.

    Raises:
        InputError: the recording cannot be read.
    """
    source = parts.workload.recording
    if source is None:
        return Workload(parts, None)
    path = recording_path(source.name)
    return Workload(parts, read_recording(path) if is_recording(path) else None)


def _of_width(spec: RouterSpec, n_experts: int) -> RouterSpec:
    """The same router over another number of experts, in contiguous groups; as many as can still hold top-k."""
    if n_experts == spec.n_experts:
        return spec
    n_groups = min(spec.n_groups, n_experts)
    room = -(-spec.top_k // (n_experts // n_groups))
    return replace(
        spec,
        n_experts=n_experts,
        n_groups=n_groups,
        top_groups=min(max(spec.top_groups, room), n_groups),
        group_of_expert=None,
    )


def _limit_not_applied(parts: Parts) -> tuple[str, ...]:
    """Say which limit on a token's groups, the scenario's own or else the model's, counts know nothing of."""
    router, published = parts.router, parts.published_router
    if router.limited:
        reached, groups = router.top_groups, router.n_groups
    elif published is not None and router.kind == published.kind and published.top_groups < published.n_groups:
        reached, groups = published.top_groups, published.n_groups
    else:
        return ()
    return (
        f"counts carry no groups: that a token reaches at most {reached} of {groups} is not applied, "
        f"so it may reach more ranks and nodes here than in the model",
    )


def _check_width(parts: Parts, batch: Batch) -> None:
    for layer, ids in (batch.expert_ids or {}).items():
        if ids.shape[1] != parts.router.top_k:
            raise InputError(
                f"layer {layer} has {ids.shape[1]} experts per token, routing.top_k is {parts.router.top_k}",
                where="workload.expert_ids",
                fix=f"set routing.top_k to {ids.shape[1]}",
            )


def add_training_rows(tables: TableBuilder, recording: Recording, layers: tuple[int, ...]) -> None:
    """Add one row per recorded training step and layer: balance and losses as the model saw them.

    Loads and losses are over the domains that the model was trained on; what concerns the held-out ones is named so,
    and null where the recording has none.
    """
    first_token = np.unique(recording.sequence, return_index=True)[1]
    unseen = [recording.domain_names.index(name) for name in recording.held_out]
    of_unseen = np.isin(recording.domain[first_token], unseen)
    for index, step in enumerate(recording.steps):
        for layer in layers:
            position = recording.layers.index(layer)
            load = imbalance(recording.counts[index, position])
            bias = recording.biases[index, position]
            within = recording.sequence_imbalance[index, position]
            losses = zip(recording.loss_names, recording.losses[index, position].tolist(), strict=True)
            tables.add(
                "training",
                step=[0],
                layer=layer,
                micro_batch=0,
                training_step=int(step),
                expert_load_max_over_mean=load.max_over_mean,
                max_violation=load.max_violation,
                **{f"{name.removesuffix('_loss')}_loss": value for name, value in losses},
                bias_spread=float(bias.max() - bias.min()),
                **_percentiles("sequence_imbalance", within[~of_unseen]),
                **_percentiles("held_out_sequence_imbalance", within[of_unseen]),
                held_out_expert_load_max_over_mean=_held_out_load(recording, index, position, unseen),
            )


def _percentiles(name: str, values: NDArray[np.float64]) -> dict[str, Any]:
    if not len(values):
        return {f"{name}_p50": nulls(1), f"{name}_p99": nulls(1)}
    return {f"{name}_p50": float(np.percentile(values, 50)), f"{name}_p99": float(np.percentile(values, 99))}


def _held_out_load(recording: Recording, index: int, position: int, unseen: list[int]) -> Any:
    if not unseen:
        return nulls(1)
    return imbalance(recording.domain_counts[index, position, unseen].sum(axis=0)).max_over_mean
