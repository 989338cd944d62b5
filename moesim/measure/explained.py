"""What stands behind the summary's numbers: constants, capacities, bytes and sources, for ``moesim explain``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from moesim.balance import losses_in_balance
from moesim.cluster import Fabric
from moesim.layer import CONTEXTS, KernelLedger, Parts, attention_kinds, least_by_context, requests_of
from moesim.measure.summary import SummaryBuilder
from moesim.model import crossover_tokens, held_bytes
from moesim.results import Term
from moesim.stages import PHASES
from moesim.workload import Batch

# What is as long as the layer has experts; the other fields of a router are its knobs.
_SIZES = ("n_experts", "group_of_expert")
# What a set says of its constants, which charges nothing.
_NO_TERMS = ("row_spread", "widen")


def explanation(
    parts: Parts, summary: SummaryBuilder, terms: dict[str, list[Term]], ledger: KernelLedger, batch: Batch
) -> dict[str, Any]:
    """Collect the explanation as a JSON-able value."""
    fabric = parts.fabric
    peaks = {
        name: sorted({float(value) for value in fabric.capacity[fabric.is_class(name)]}) for name in fabric.link_classes
    }
    return {
        "topology": {
            "name": fabric.name,
            "gpu": fabric.gpu,
            "ranks": fabric.n_ranks,
            "nodes": fabric.n_nodes,
            "peak_bytes_per_s": peaks,
            "gemm_flops_per_s": parts.kernels.gpu.flops(parts.message_dtype["dispatch"]),
            "memory_bytes_per_s": parts.kernels.gpu.hbm_bandwidth,
            "latency_s": {name: float(fabric.latency[fabric.is_class(name)].max()) for name in fabric.link_classes},
        },
        "alltoall": {phase: _phase(parts, phase) for phase in PHASES},
        "losses_in_balance": losses_in_balance(parts.router, parts.loss_device, parts.loss_factors),
        "router": {
            **{knob.name: getattr(parts.router, knob.name) for knob in fields(parts.router) if knob.name not in _SIZES},
            "groups_are": parts.groups_are,
        },
        "kernels": ledger.rows(),
        "terms": terms,
        "critical_ranks": [critical.rank for critical in summary.critical],
        "held_by_s": summary.held_by(),
        "held_longest": _held_longest(fabric, terms),
        "bottleneck_class": summary.bottleneck()[1],
        "busiest_links": {phase: _busiest(parts, summary, phase) for phase in PHASES},
        **_attention(parts),
        "workload": {"notes": [*batch.notes, *batch.estimated], "resampled": batch.resampled},
    }


def _attention(parts: Parts) -> dict[str, Any]:
    """Of a whole step: its attention beside the other kinds, and what a GPU holds."""
    step = parts.inference
    load = None if step is None else requests_of(step, parts.workload)
    if step is None or load is None:
        return {}
    found: dict[str, Any] = {
        "load": load._asdict(),
        "kinds": attention_kinds(step.spec, parts.kernels, load),
        "contexts": list(CONTEXTS),
        "least_by_context_s": least_by_context(step.spec, parts.kernels, load),
        "crossover_tokens": crossover_tokens(step.spec.attention),
    }
    if parts.memory is not None:
        found["memory_bytes"] = held_bytes(parts.memory)
    return {"attention": found}


def _phase(parts: Parts, phase: str) -> dict[str, Any]:
    """Bytes, and constants as this run used them: rates on its own ports, set-up for its own nodes and ranks."""
    constants, fabric = parts.constants[phase], parts.fabric
    fresh = phase == "dispatch" and not parts.cached_handle
    used = {field.name: getattr(constants, field.name) for field in fields(constants)}
    rates: dict[str, Any] = {}
    for name in fabric.link_classes:
        efficiency, peaks = constants.efficiency(name, fabric.n_ranks), fabric.capacity[fabric.is_class(name)]
        rates[f"{name}_efficiency"] = efficiency
        rates[f"{name}_rates_bytes_per_s"] = sorted({float(peak * efficiency) for peak in (peaks.min(), peaks.max())})
    return {
        "algorithm": constants.algorithm,
        "dtype": parts.message_dtype[phase],
        "wire_bytes_per_copy": parts.wire_bytes[phase],
        "published_bytes_per_copy": parts.published_bytes[phase],
        **rates,
        "setup_intra_node_s": constants.setup_s(True, fabric.n_nodes, fabric.n_ranks, parts.n_slots),
        "setup_inter_node_s": constants.setup_s(False, fabric.n_nodes, fabric.n_ranks, parts.n_slots),
        "layout_s": constants.layout_s if fresh else 0.0,
        "notify_s": constants.notify_s(fabric.n_nodes) if fresh else 0.0,
        "cpu_sync_s": constants.cpu_sync_s if fresh else 0.0,
        "sms": constants.sms,
        "total_sms": constants.total_sms,
        "source": constants.source,
        "calibration": constants.name,
        "fitted_rows": len(constants.rows),
        "error_left": dict(constants.error),
        "held_out": dict(constants.held_out),
        "clusters": constants.clusters,
        "constants": {
            name: value
            for name, value in used.items()
            if isinstance(value, float) and value != 0.0 and name not in _NO_TERMS
        },
        "protocols": [asdict(protocol) for protocol in constants.protocols],
    }


def _busiest(parts: Parts, summary: SummaryBuilder, phase: str) -> list[dict[str, Any]]:
    """The link of each class that needs longest for its bytes at the algorithm's rate, mean over the layers."""
    fabric, constants = parts.fabric, parts.constants[phase]
    wire = summary.wire[phase] / max(len(summary.layers), 1)
    rows = []
    for link_class in fabric.link_classes:
        links = np.flatnonzero(fabric.is_class(link_class))
        seconds = wire[links] / (fabric.capacity[links] * constants.efficiency(link_class, fabric.n_ranks))
        link = int(links[np.argmax(seconds)])
        if wire[link] > 0:
            rows.append(
                {
                    "link": fabric.link_names[link],
                    "link_class": link_class,
                    "wire_bytes": float(wire[link]),
                    "capacity_bytes_per_s": float(fabric.capacity[link]),
                    "seconds_at_full_rate": float(seconds.max()),
                }
            )
    return rows


def held_seconds(terms: Mapping[str, Sequence[Term]]) -> dict[str, float]:
    """Return for how long each wire held the critical ranks back in the all-to-alls of a layer, by its name."""
    seconds: dict[str, float] = {}
    for phase in PHASES:
        for share in (share for term in terms[f"{phase}_time_s"] for share in term.get("of", ())):
            if "link" in share:
                seconds[share["link"]] = seconds.get(share["link"], 0.0) + share["value"]
    return seconds


def _held_longest(fabric: Fabric, terms: Mapping[str, Sequence[Term]]) -> dict[str, Any] | None:
    """The wire that held the critical ranks back longest, with the peak that most of its class have."""
    seconds = held_seconds(terms)
    if not seconds:
        return None
    name = max(seconds, key=lambda link: (seconds[link], link))
    link = fabric.link_names.index(name)
    return {
        "link": name,
        "seconds": seconds[name],
        "capacity_bytes_per_s": float(fabric.capacity[link]),
        "peers_bytes_per_s": float(np.median(fabric.capacity[fabric.is_class(fabric.link_class[link])])),
    }
