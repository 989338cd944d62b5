"""Whether a run is worth compiled kernels: a small one ends sooner in plain Python, with the very same bytes.

Loading what is compiled takes half a second, compiling it half a minute. The estimate is rough and on the safe side:
seconds per logit of the router's numpy form, per flow of the interpreted engine.
"""

import functools
import math
import os
from typing import TYPE_CHECKING, Any

from moesim import compiling
from moesim.alltoall_library import algorithm_named
from moesim.warm_up import compile_aside, missing

if TYPE_CHECKING:
    from moesim.scenario import Scenario

_PER_LOGIT_S, _PER_FLOW_S = 1.5e-7, 4e-3
# What compiled kernels take to load; and what an interpreted run may take where they must be compiled first.
_LOAD_S, _LONGEST_S = 0.7, 8.0
# Routers that have a numpy form, see moesim.routing.fused_pass_takes.
_LEAST_EXPERTS, _MOST_PER_TOKEN = 64, 8
# Tokens of a recording that are routed; the others are copies. GPUs of a node, about.
_RECORDED_TOKENS, _PER_NODE = 16_384, 8


def make_ready(scenario: "Scenario", again: int = 0) -> None:
    """Choose how this process runs its kernels, before any of them is imported.

    ``MOESIM_INTERPRET=0`` has all runs compiled.
    """
    lacking = missing()
    small = seconds_interpreted(scenario, again) < (_LONGEST_S if lacking else _LOAD_S)
    if small and os.environ.get("MOESIM_INTERPRET") != "0" and compiling.interpret() and lacking:
        compile_aside()


def seconds_interpreted(scenario: "Scenario", again: int = 0) -> float:
    """Estimate what the kernels of a run take in plain Python, seconds; infinite where a kernel has no fast form.

    ``again``: how often the first step is put on the clock again, for intervals.
    """
    workload, experts, ranks = scenario.workload, scenario.model.n_experts, ranks_and_node(scenario)[0]
    top_k = scenario.routing.top_k
    if experts is None or top_k is None:
        return math.inf
    if scenario.variant_scenarios() or experts < _LEAST_EXPERTS or top_k > _MOST_PER_TOKEN:
        return math.inf
    if scenario.placement.policy == "affinity":
        return math.inf
    by_token = bool(scenario.placement.redundant_experts) and scenario.placement.replica_choice != "same_node"
    often = workload.synthetic is not None and workload.synthetic.kind == "skew"  # its router runs some ten times
    if often or by_token or scenario.cluster.flows == "ports" or not (workload.recording or workload.synthetic):
        return math.inf
    tokens = workload.tokens_per_rank
    total = sum(tokens) if isinstance(tokens, tuple) else (tokens or _RECORDED_TOKENS) * ranks
    if workload.recording is not None:
        total = min(total, _RECORDED_TOKENS)
    recorded = len(workload.recording.layers) if workload.recording and workload.recording.layers else 1
    layers = max(recorded, workload.layers_simulated or 1)
    flows = {"trees": max(1, ranks // _PER_NODE) * ranks, "rings": ranks}.get(
        algorithm_named(scenario.alltoall.algorithm).flows, ranks * ranks
    )
    if (groups := scenario.parallel.groups) > 1:  # together, each alone, and by other placements
        total, again = total * groups, 5 * groups
    logits = total * experts * recorded
    return workload.steps * (_PER_LOGIT_S * logits + _PER_FLOW_S * 2 * flows * layers * (1 + again))


def ranks_and_node(scenario: "Scenario") -> tuple[int, int]:
    """Ranks, where they are not given those of the topology, and GPUs of a node; no fabric is built."""
    gpus, per_node = _gpus(scenario.source(scenario.cluster.name))
    return scenario.parallel.ep or gpus, per_node


@functools.cache
def _gpus(topology: str) -> tuple[int, int]:
    from moesim.cluster import find_topology, read_topology

    spec: Any = read_topology(find_topology(topology))
    if hasattr(spec, "gpus_per_node"):
        return int(getattr(spec, "nodes", 1) * spec.gpus_per_node), int(spec.gpus_per_node)
    return sum(device.type == "gpu" for device in spec.nodes), _PER_NODE
