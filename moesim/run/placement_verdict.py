"""Does another placement pay: learnt on some tokens, judged on others, against the present one.

What is learnt from follows ``placement.learn_from``; by default it is the first half of the recorded tokens, and the
second is judged on. The present placement is the scenario's own where that knows no load, else contiguous.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.layer import Parts, Workload, build_parts, open_workload, place, see, window
from moesim.placement import Placement, affinity_frontier, renumbered
from moesim.placement_policies import FIXED_POLICIES, REBALANCE_POLICIES
from moesim.results import Ageing, PlacementVerdict
from moesim.run.ageing import ageing, too_short
from moesim.run.placement_clock import DRIFT_STEPS, Candidate, judge
from moesim.run.placement_study import NEED_ROOM, study
from moesim.run.routed_steps import initial_state, route_step
from moesim.scenario import Scenario
from moesim.traffic import weight_transfer
from moesim.units import format_duration
from moesim.workload import Batch

_POLICIES = (
    "round_robin",
    "greedy",
    "eplb_hierarchical",
    "eplb_global",
    "lp",
    "affinity",
    "replicate_top",
    "per_batch",
)
# Layers of a trace that are put on the clock, evenly spaced.
_MOST_LAYERS = 4

Placements = Mapping[int, Placement]


def place_verdict(
    scenario: Scenario, redundant: Sequence[int] = (), say: Callable[[str], None] = lambda _: None
) -> PlacementVerdict:
    """Judge placements of a scenario's experts.

    Args:
        scenario: tokens, router, cluster, and the placement that the others are measured against.
        redundant: slots beyond one for each expert to try; by default what fills the ranks evenly, and one more each.
        say: called with a line when something begins.

    Raises:
        InputError: slots that the ranks do not divide, or parts of the scenario that do not fit each other.
    """
    parts = build_parts(scenario)
    learn_from = parts.placement.learn_from or "first_half"
    section = {"learn_from": learn_from, "rebalance": None}
    parts = replace(parts, placement=parts.placement.model_copy(update=section))
    workload = open_workload(parts)
    recorded = workload.batch(0).layers[: parts.workload.layers_simulated]
    layers = tuple(recorded[i] for i in np.unique(np.linspace(0, len(recorded) - 1, _MOST_LAYERS).astype(int)))
    parts = replace(parts, workload=parts.workload.model_copy(update={"layers_simulated": len(layers)}))
    tokens = _Tokens(parts, workload, workload if learn_from == "batch" else window(workload, learn_from), layers)
    say(f"learning from {tokens.learnt_from}")
    candidates = list(tokens.candidates(_rows(scenario, tokens.policies(), _slots(parts, redundant), say)))
    moe_layers = len(scenario.model_spec().moe_layer_ids)
    options = judge(tokens.batch, candidates, moe_layers, say)
    say("ageing")
    verdict = PlacementVerdict(
        scenario=parts.name,
        phase=parts.schedule.phase,
        learnt_from=tokens.learnt_from,
        judged_on=tokens.judged_on,
        same=tokens.same,
        present=candidates[0].policy,
        options=options,
        ageing=Ageing(0, ""),
        frontier=tokens.frontier(),
        drift_steps=DRIFT_STEPS,
        notes=tuple(_notes(tokens.batch, len(layers), len(recorded), moe_layers)),
    )
    best = verdict.best
    policy = best.policy if best is not None and best.policy in REBALANCE_POLICIES else "eplb_global"
    return replace(verdict, ageing=tokens.ageing(policy, candidates[0].placement))


@dataclass(frozen=True)
class _Tokens:
    """The tokens that placements are learnt from, and those that they are judged on."""

    parts: Parts
    workload: Workload
    past: Workload
    layers: tuple[int, ...]

    @property
    def made_up(self) -> bool:
        """Whether the tokens are synthetic."""
        return self.workload.recording is None and self.workload.trace is None

    @property
    def same(self) -> bool:
        """Whether what is judged on is what was learnt from."""
        trace = self.workload.trace
        whole = trace is not None and trace.counts is not None and len(trace.counts) < 2
        return self.parts.placement.learn_from in ("batch", "all") or (self._halves and whole)

    @property
    def _halves(self) -> bool:
        return self.parts.placement.learn_from == "first_half"

    @property
    def learnt_from(self) -> str:
        """The tokens learnt from, in words."""
        if self.made_up:
            return "a batch of the same popularities"
        words = {"first_half": "the first half of the recorded tokens", "all": "all recorded tokens"}
        if self.same and self._halves:
            return "counts of one step, which has no halves"
        learn_from = str(self.parts.placement.learn_from)
        return words.get(learn_from, "the very batch" if learn_from == "batch" else learn_from)

    @property
    def judged_on(self) -> str:
        """The tokens judged on, in words."""
        if self.same:
            return "the same tokens"
        if self.made_up:
            return "another batch of them"
        return "the second half" if self._halves else "tokens as a run draws them"

    @property
    def batch(self) -> Batch:
        """The tokens to judge on."""
        return _only(self.workload.batch(0), self.layers)

    def candidates(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Candidate]:
        """The present placement, then those of a study's rows."""
        parts, batch, n_nodes = self.present_parts, self.batch, self.parts.fabric.n_nodes
        policy, file = parts.placement.policy, parts.placement.file
        step, _ = route_step(parts, initial_state(parts, batch), batch)
        present = {layer: one.placement for layer, one in step.layers.items()}
        yield Candidate(f"file {file}" if file else policy, 0, parts, present, {})
        for row in rows:
            name, extra, placed = row["policy"], row["slots"] - parts.model.n_experts, row["placement"]
            learnt: Placements = present
            if placed is not None:  # what is fetched for every batch has its home where it is now
                learnt = {layer: renumbered(placed.for_layer(layer), present[layer], n_nodes) for layer in present}
            loads = {"rank_itself": row["on_b_itself"]["rank"], "rank_learnt": row["on_a"] and row["on_a"]["rank"]}
            yield Candidate(name, extra, self._with(name, extra), learnt, loads)

    @property
    def present_parts(self) -> Parts:
        """The parts with the present placement."""
        section = self.parts.placement
        own = section.file is not None or section.policy in FIXED_POLICIES
        return self.parts if own else self._with("contiguous", 0)

    def policies(self) -> list[str]:
        """The policies that make another placement than the present one on this cluster."""
        n_nodes, n_groups = self.parts.fabric.n_nodes, self.parts.router.n_groups
        useless = {self.present_parts.placement.policy}
        if not 2 <= n_nodes <= self.parts.model.n_experts:
            useless.add("affinity")
        if n_nodes < 2 or n_groups % n_nodes:
            useless.add("eplb_hierarchical")
        return [policy for policy in _POLICIES if policy not in useless]

    def _with(self, policy: str, redundant: int) -> Parts:
        asked = {"policy": policy, "redundant_experts": redundant, "file": None}
        return replace(self.parts, placement=self.parts.placement.model_copy(update=asked), placement_map=None)

    def ageing(self, policy: str, present: Placements) -> Ageing:
        """How fast the policy's placements age, without replicas."""
        trace = self.workload.trace
        if self.made_up or (trace is not None and trace.unit == "counts"):
            return too_short("synthetic tokens and counts have no order in time")
        parts, everything = self._with(policy, 0), see(window(replace(self.workload, half=None), "all"))
        if parts.n_slots % parts.fabric.n_ranks:
            parts = self._with(policy, -parts.n_slots % parts.fabric.n_ranks)
        ids = [everything(layer).expert_ids for layer in self.layers]
        before = [present[layer] for layer in self.layers]
        return ageing(ids, parts.router.n_experts, before, lambda load, its: place(parts, load, lambda: its))

    def frontier(self) -> tuple[tuple[float, float], ...]:
        """Affinity's node load and nodes per token for limits on the former, of the first layer, on the past."""
        fabric = self.parts.fabric
        if "affinity" not in self.policies():
            return ()
        seen = see(self.past)(self.layers[0])
        rows = affinity_frontier(seen.load, seen.expert_ids, fabric.n_ranks, fabric.n_nodes, seed=self.parts.seed)
        return tuple((row["node_load"], row["nodes_per_token"]) for row in rows)


def _rows(
    scenario: Scenario, policies: Sequence[str], redundant: Sequence[int], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """What every policy learns, with every number of slots that it has a use for."""
    slots = [scenario.model.n_experts + extra for extra in redundant]
    return study(scenario, sorted(policies, key=lambda one: one in NEED_ROOM), slots, say) if policies else []


def _slots(parts: Parts, redundant: Sequence[int]) -> tuple[int, ...]:
    """Numbers of redundant experts to try."""
    ranks, fill = parts.fabric.n_ranks, -parts.model.n_experts % parts.fabric.n_ranks
    for extra in redundant:
        if (extra - fill) % ranks:
            raise InputError(
                f"{parts.model.n_experts + extra} slots do not spread evenly over {ranks} ranks",
                where="--redundant",
                fix=f"use {fill}, or that plus a multiple of {ranks}",
            )
    return tuple(dict.fromkeys(redundant)) or (fill, fill + ranks)


def _only(batch: Batch, layers: tuple[int, ...]) -> Batch:
    """The batch with some of its layers."""
    rows = {
        name: {layer: of[layer] for layer in layers}
        for name, of in (("logits", batch.logits), ("expert_ids", batch.expert_ids))
        if of is not None
    }
    return replace(batch, **rows)  # type: ignore[arg-type]


def _notes(batch: Batch, layers: int, recorded: int, moe_layers: int) -> Iterator[str]:
    """What the numbers rest on."""
    over = "of one layer" if layers == 1 else f"means over {layers} layers"
    over += "" if layers == recorded else f" of {recorded}"
    yield f"times are {over}; what all layers take is that times the model's {moe_layers}"
    for mode, words in (("blocking", "while all ranks stop"), ("async", "beside the tokens, one layer a step")):
        transfer = weight_transfer(mode)
        least, most = map(format_duration, transfer.fixed_range_s)
        yield (
            f"{mode}: weights move {words}, and {format_duration(transfer.fixed_s)} for each layer that changes "
            f"(estimated; published: {least} to {most}): {transfer.source}"
        )
    yield f"drifting: what is saved falls to 1/e in {DRIFT_STEPS:,.0f} steps, a synthetic drift that nobody measured"
    yield from (f"tokens: {text}" for text in (*batch.notes, *batch.estimated))
