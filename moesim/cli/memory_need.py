"""The memory that a run takes at its peak, estimated before the work; where that is too much, what would fit.

A sum of what is held at once: the process with its libraries, the logits of the distinct tokens, counts per pair of
ranks, flows with what the engine and the tables keep of each, links, and parts of tokens in the air. The bytes of each
were fitted on the peaks of the shipped scenarios and of large ones (``tests/cli/test_memory_need.py``).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim.alltoall_library import algorithm_named
from moesim.cli.first_run import ranks_and_node
from moesim.cli.memory_limit import limit_bytes
from moesim.errors import InputError
from moesim.units import format_bytes

if TYPE_CHECKING:
    from moesim.scenario import Scenario

PROCESS = 220 << 20
"""Interpreter, libraries, compiled kernels and the page."""
_MOST_DISTINCT, _MOST_LOGITS = 16_384, 256 << 20
_MOST_PAIR_RANKS = 4096
_PART_TOKENS = 1 << 16
_TREE_FLOW, _PAIR_FLOW, _PORT_RANK = 2600, 1100, 50_000
# Of a rank's rows in the tables of a layer, of a flow's there, and of a selection that is being followed.
_RANK_ROWS, _FLOW_ROW, _SELECTION = 2000, 600, 80
# Layers of a whole step that are simulated at least.
_FEWEST_LAYERS = 6


@dataclass(frozen=True)
class Need:
    """What the memory of a run follows from; ``tokens`` of one group's ranks, ``routed`` layers with own logits."""

    tokens: int
    ranks: int
    per_node: int
    experts: int
    top_k: int
    routed: int
    layers: int
    steps: int
    cuts: int
    flows: str
    logits: bool
    selections_kept: bool
    sequence: int
    file_bytes: int
    groups: int = 1

    def total(self) -> int:
        """Bytes at the peak."""
        nodes = -(-self.ranks // self.per_node)
        ports = self.flows == "ports"
        pairs = 0 if ports else self.routed * self.cuts * self.ranks * (16 * self.ranks + 8 * nodes) * 2
        flows, each = {
            "ports": (self.ranks, _PORT_RANK),
            "trees": (self.ranks * nodes * 2, _TREE_FLOW),
            "rings": (self.ranks * 2, _PAIR_FLOW),
        }.get(self.flows, (self.ranks * self.ranks * 2, _PAIR_FLOW))
        rows = self.steps * self.layers * self.cuts * (self.ranks * _RANK_ROWS + flows * _FLOW_ROW)
        of_group = self._tokens() + pairs + flows * each * self.routed * self.cuts + rows
        return PROCESS + self.groups * of_group + 3 * self.file_bytes

    def _tokens(self) -> int:
        distinct = min(self.tokens, _MOST_DISTINCT, _MOST_LOGITS // (4 * self.experts * self.routed))
        logits = distinct * self.experts * 4 if self.logits else 0
        kept = logits * self.routed * (1.5 if self.cuts > 1 else 1)
        followed = min(self.tokens, (os.cpu_count() or 1) * _PART_TOKENS) * self.top_k * _SELECTION
        drawn = 8 * self.tokens // self.sequence + (24 * self.tokens if self.cuts > 1 else 0)
        seen = 8 * self.tokens * self.top_k if self.selections_kept else 0
        return int(kept) + logits + followed + drawn + seen + 8 * distinct * self.top_k * self.routed


def need_of(scenario: "Scenario") -> Need:
    """Return what a scenario's memory follows from; nothing is simulated, no file but the topology read."""
    workload, (ranks, per_node) = scenario.workload, ranks_and_node(scenario)
    tokens: Any = workload.tokens_per_rank
    total = sum(tokens) if isinstance(tokens, tuple) else (tokens or _MOST_DISTINCT // min(ranks, 4)) * ranks
    recorded = workload.recording.layers if workload.recording and workload.recording.layers else ()
    least = _FEWEST_LAYERS if workload.of_step and workload.layers_simulated is None else 1
    routed = len(recorded) or workload.layers_simulated or (3 if workload.recording else 1)
    paths = [Path(scenario.source(name)) for name in (workload.expert_ids, workload.counts) if name]
    paths += [Path(scenario.routing_path())] if workload.routing else []
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    at_ports = scenario.cluster.flows == "ports" or (scenario.cluster.flows == "auto" and ranks > _MOST_PAIR_RANKS)
    return Need(
        tokens=total, ranks=ranks, per_node=per_node, experts=scenario.model.n_experts or 1,
        top_k=scenario.routing.top_k or 1, routed=routed, layers=max(routed, workload.layers_simulated or least),
        steps=workload.steps, cuts=2 if scenario.schedule.overlap == "two-batch" else 1,
        flows="ports" if at_ports else algorithm_named(scenario.alltoall.algorithm).flows,
        logits=not workload.gives_experts, selections_kept=scenario.placement.policy == "affinity",
        sequence=getattr(workload.synthetic, "sequence_length", None) or 256,
        file_bytes=sum(file.stat().st_size for file in files), groups=scenario.groups_at_once,
    )  # fmt: skip


def refuse_too_large(scenario: "Scenario", max_mem: str | None, processes: int = 1) -> None:
    """Refuse a scenario whose estimate is above the limit.

    Args:
        scenario: as loaded.
        max_mem: as typed, ``8GB``; None for 80 % of what the machine or the cgroup has.
        processes: that run it, or its variants or points, side by side.

    Raises:
        InputError: it needs more, or the limit is no size; says what would fit. Of what cannot be built, at any size,
            the reason for that.
    """
    runs = list((scenario.variant_scenarios() or {"": scenario}).values())
    need = max((need_of(one) for one in runs), key=Need.total)
    limit, total = limit_bytes(max_mem), need.total() * processes
    if total <= limit:
        return
    from moesim.layer import build_parts

    for one in runs:
        build_parts(one)
    what = f"about {format_bytes(total)} of memory are needed (estimated)"
    what += f", by {processes} processes" if processes > 1 else ""
    raise InputError(
        f"{what}, {format_bytes(limit)} is the limit", "--max-mem", _what_fits(runs, need, limit, processes)
    )


def _what_fits(runs: "list[Scenario]", need: Need, limit: float, processes: int) -> str:
    """The one change of the scenario that helps, as large as it may be, and that it can be loaded with."""
    if processes > 1 and need.total() <= limit:
        return f"--jobs {int(limit // need.total())} fits"
    per_rank = max(need.tokens // need.ranks, 1)
    knobs: tuple[tuple[str, int, Callable[[int], Need]], ...] = (
        ("workload.tokens_per_rank", per_rank, lambda n: replace(need, tokens=n * need.ranks)),
        ("workload.layers_simulated", need.layers, lambda n: replace(need, layers=n, routed=min(n, need.routed))),
        ("workload.steps", need.steps, lambda n: replace(need, steps=n)),
        ("parallel.ep", need.ranks, lambda n: replace(need, ranks=n, tokens=per_rank * n)),
    )
    if need.flows not in ("ports", "rings") and _fits(runs, "cluster.flows", "ports", limit):
        return "cluster.flows: ports fits, an estimate itself, or give --max-mem"
    for name, most, smaller in knobs:
        if smaller(1).total() > limit:
            continue
        fits = 1
        for bit in reversed(range(most.bit_length())):
            if fits + (1 << bit) < most and smaller(fits + (1 << bit)).total() <= limit:
                fits += 1 << bit
        for value in (fits, 1 << (fits.bit_length() - 1)):  # what an odd number does not divide, a power of two may
            if _fits(runs, name, value, limit):
                return f"{name}: {value} fits, or give --max-mem"
    return "nothing smaller fits, give --max-mem"


def _fits(runs: "list[Scenario]", key: str, value: Any, limit: float) -> bool:
    """Whether the scenario, or every variant, can be built with another value, and is estimated within the limit."""
    from moesim.layer import build_parts
    from moesim.scenario import ScenarioTemplate

    try:
        changed = [ScenarioTemplate.of(one).scenario({key: value}) for one in runs]
        for one in changed:
            build_parts(one)
    except InputError:
        return False
    return max(need_of(one).total() for one in changed) <= limit
