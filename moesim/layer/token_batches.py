"""The scenario's workload section as batches of tokens, and the training history that comes with a recording."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.balance import imbalance
from moesim.errors import InputError
from moesim.layer.parts import Parts
from moesim.layer.recorded_router import read_bias
from moesim.recording_format import Recording, is_recording, read_recording, recording_path
from moesim.results import TableBuilder, nulls
from moesim.routing import RouterSpec, route
from moesim.workload import (
    Batch,
    Half,
    RoutingTrace,
    Target,
    dealt_batch,
    read_routing,
    recorded_batch,
    synthetic_batch,
    traced_batch,
)

_WORKLOAD_STAGE, _POPULARITY_STAGE = 1, 5


@dataclass(frozen=True)
class Workload:
    """A scenario's tokens: a recording of moesim's own, recorded routing of any other form, or neither (synthetic)."""

    parts: Parts
    recording: Recording | None = None
    trace: RoutingTrace | None = None
    trace_layers: tuple[int, ...] | None = None
    half: Half | None = None
    stage: int = _WORKLOAD_STAGE

    def batch(self, step: int) -> Batch:
        """Draw the batch of a simulated step, the same for the same seed and step."""
        parts, workload = self.parts, self.parts.workload
        common: dict[str, Any] = {
            "n_ranks": parts.fabric.n_ranks,
            "rng": parts.own_rng(self.stage, step),
            "assign": workload.assign,
            "n_experts": parts.router.n_experts,
        }
        if workload.tokens_per_rank is not None:
            common["tokens_per_rank"] = workload.tokens_per_rank
        if self.trace is not None:
            return self._traced(self.trace, common)
        if workload.synthetic is not None:
            return self._synthetic(step, common)
        source, recording = workload.recording, self.recording
        assert source is not None and recording is not None  # noqa: S101 - one of the sources is given
        domains = recording.domain_names if workload.domains == "all" else workload.domains
        return recorded_batch(
            recording,
            layers=source.layers or recording.layers,
            step=source.step,
            domains=domains,
            select=self._select,
            group_counts=(parts.fabric.n_ranks, parts.fabric.n_nodes, parts.router.n_groups),
            half=self.half,
            bootstrap=parts.group > 0,
            **common,
        )

    def _synthetic(self, step: int, common: dict[str, Any]) -> Batch:
        parts, knobs = self.parts, self.parts.workload.synthetic
        assert knobs is not None  # noqa: S101 - whoever calls has looked
        common |= {
            "layers": range(parts.workload.layers_simulated or 1),
            "top_k": parts.router.top_k,
            "ranks_per_node": parts.fabric.ranks_per_node,
            "popularity_rng": parts.rng(_POPULARITY_STAGE),
            "step": step,
        }
        if parts.workload.deals:
            del common["assign"]
            return dealt_batch(knobs.kind, **common)
        if knobs.kind == "skew":
            # The bias that the run starts with; a synthetic workload brings none of its own.
            bias = read_bias(parts) if parts.router.kind == "v3" and parts.bias not in ("recorded", "zero") else None
            (figure,) = knobs.figures.items()
            common |= {
                "target": Target(*figure),
                "select": lambda logits, _: route(logits, parts.router, bias).expert_ids,
            }
        return synthetic_batch(**knobs.model_dump(exclude=set(Target.NAMES)), **common)

    def _select(self, logits: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.int32]:
        return route(logits, _of_width(self.parts.router, logits.shape[1]), bias).expert_ids

    def _traced(self, trace: RoutingTrace, common: dict[str, Any]) -> Batch:
        parts = self.parts
        if trace.unit != "logits" and parts.update_bias:
            raise InputError("no router runs on given experts", "routing.update_bias", "update_bias: false")
        batch = traced_batch(
            trace, top_k=parts.router.top_k, layers=self.trace_layers, where="workload", half=self.half,
            bootstrap=parts.group > 0, **common,
        )  # fmt: skip
        if trace.unit == "counts":
            batch = replace(batch, estimated=(*batch.estimated, *_limit_not_applied(parts)))
        if trace.unit == "logits" and trace.bias is None and parts.router.kind == "v3" and parts.bias == "recorded":
            batch = replace(batch, notes=(*batch.notes, "these logits have no bias: none is used"))
        return batch


def open_workload(
    parts: Parts, read: Callable[[], RoutingTrace | None] | None = None, recording: Recording | None = None
) -> Workload:
    """Open what the workload section names; tokens that a placement has learnt from are left out.

    Args:
        parts: of the scenario.
        read: gives the recorded routing where it is at hand already; read by default.
        recording: the recording, likewise.

    Raises:
        InputError: the recording cannot be read, or is of another number of experts than the model.
    """
    workload, source = parts.workload, parts.workload.recording
    half: Half | None = "second" if parts.placement.learn_from == "first_half" else None
    if source is not None and is_recording(path := recording_path(source.name)):
        return Workload(parts, recording or read_recording(path), half=half)
    layers = workload.routing.layers if workload.routing is not None else None
    return Workload(parts, trace=read() if read is not None else trace_of(parts), trace_layers=layers, half=half)


def trace_of(parts: Parts) -> RoutingTrace | None:
    """Read the recorded routing that the scenario names; None where its tokens come from elsewhere.

    Raises:
        InputError: it cannot be read, or is of another number of experts than the model.
    """
    workload, experts = parts.workload, parts.router.n_experts
    if workload.routing is not None:
        return read_routing(workload.routing.file, n_experts=experts)
    if workload.expert_ids is not None:
        return read_routing(workload.expert_ids, n_experts=experts, unit="ids")
    if workload.counts is not None:
        return read_routing(workload.counts, n_experts=experts, unit="counts")
    source = workload.recording
    if source is None or is_recording(path := recording_path(source.name)):
        return None
    return read_routing(path, n_experts=experts, unit="logits", layers=source.layers)


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
