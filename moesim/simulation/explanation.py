"""What stands behind the summary's numbers: constants, capacities, bytes and sources, for ``moesim explain``."""

from dataclasses import asdict, fields
from typing import Any

import numpy as np

from moesim.simulation.kernels import KernelLedger
from moesim.simulation.parts import Parts
from moesim.simulation.summary import SummaryBuilder
from moesim.stages import PHASES
from moesim.workload import Batch


def explanation(parts: Parts, summary: SummaryBuilder, ledger: KernelLedger, batch: Batch) -> dict[str, Any]:
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
            "latency_s": {name: float(fabric.latency[fabric.is_class(name)].max()) for name in fabric.link_classes},
        },
        "alltoall": {phase: _phase(parts, phase) for phase in PHASES},
        "router": {
            "kind": parts.router.kind,
            "top_k": parts.router.top_k,
            "n_groups": parts.router.n_groups,
            "top_groups": parts.router.top_groups,
            "groups_are": parts.groups_are,
            "score": parts.router.score,
            "group_score": parts.router.group_score,
        },
        "kernels": ledger.rows(),
        "critical_ranks": [critical.rank for critical in summary.critical],
        "held_by_s": summary.held_by(),
        "busiest_links": {phase: _busiest(parts, summary, phase) for phase in PHASES},
        "workload": {"notes": [*batch.notes, *batch.estimated], "resampled": batch.resampled},
    }


def _phase(parts: Parts, phase: str) -> dict[str, Any]:
    constants, fabric = parts.constants[phase], parts.fabric
    fresh = phase == "dispatch" and not parts.cached_handle
    terms = {field.name: getattr(constants, field.name) for field in fields(constants)}
    used = {name: value for name, value in terms.items() if isinstance(value, float) and value != 0.0}
    return {
        "algorithm": constants.algorithm,
        "dtype": parts.message_dtype[phase],
        "wire_bytes_per_copy": parts.wire_bytes[phase],
        "published_bytes_per_copy": parts.published_bytes[phase],
        "nvlink_rate_bytes_per_s": constants.nvlink_speed(fabric.n_ranks),
        "nic_rate_bytes_per_s": constants.nic_rate,
        "nvlink_efficiency": constants.efficiency("nvlink", fabric.n_ranks),
        "nic_efficiency": constants.efficiency("nic", fabric.n_ranks),
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
        "terms": used,
        "protocols": [asdict(protocol) for protocol in constants.protocols],
    }


def _busiest(parts: Parts, summary: SummaryBuilder, phase: str) -> list[dict[str, Any]]:
    """The link of each class with the most bytes per layer, and how much that is."""
    fabric, wire = parts.fabric, summary.wire[phase] / max(len(summary.layers), 1)
    rows = []
    for link_class in fabric.link_classes:
        links = np.flatnonzero(fabric.is_class(link_class))
        link = int(links[np.argmax(wire[links])])
        if wire[link] > 0:
            seconds = wire[link] / (
                fabric.capacity[link] * parts.constants[phase].efficiency(link_class, fabric.n_ranks)
            )
            rows.append(
                {
                    "link": fabric.link_names[link],
                    "link_class": link_class,
                    "wire_bytes": float(wire[link]),
                    "capacity_bytes_per_s": float(fabric.capacity[link]),
                    "seconds_at_full_rate": float(seconds),
                }
            )
    return rows
