"""What the reader of a result must not take at face value."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moesim.cluster import Fabric, ShortestPaths
from moesim.layer import PORTS_NOTE, KernelLedger, Parts, uses_ports
from moesim.measure.layer_tables import RANK_PAIR_LIMIT
from moesim.measure.times_moved import spreads
from moesim.measure.tolerance import ToleranceLedger
from moesim.results import Note
from moesim.traffic import Calibration, error_left_out, way_between
from moesim.units import format_bandwidth
from moesim.workload import Batch


def degraded(parts: Parts, ledger: KernelLedger, tolerance: ToleranceLedger, batch: Batch) -> list[Note]:
    """Return the caveats, the most important first.

    Args:
        parts: of the scenario.
        ledger: the kernels' seconds by source.
        tolerance: how far off flows that took steps may be.
        batch: of the first step.
    """
    notes, shares = [], ledger.shares()
    for source in ("extrapolated", "estimated"):
        if shares.get(source, 0.0) > 0:
            kernels = sorted({row["kernel"] for row in ledger.rows() if row["source"] == source})
            text = f"{100 * shares[source]:.0f} % of compute time is {source}: {', '.join(kernels)}"
            notes.append(Note("degraded" if source == "extrapolated" else "estimated", text))
    notes += (Note("estimated", f"model: {text}") for text in parts.model_notes)
    constants = parts.constants["dispatch"]
    own = Path(parts.calibration)
    mine = f"those of your file {own.name}" if own.suffix in (".yaml", ".yml") else ""
    left_out = _left_out(parts) if constants.clusters and not mine else ""
    rates = mine or rates_from(constants, left_out)
    notes.append(Note("estimated", f"all-to-all rates are {rates}: {constants.source}"))
    sure = spreads(parts)["dispatch"]
    text = f"intervals of times hold 80 %: {sure.source}; kernel times and waiting are taken as known"
    notes.append(Note("info", text))
    notes += (Note("estimated", text) for text in _scaled(parts))
    notes += tolerance.notes()
    if uses_ports(parts):
        notes.append(Note("estimated", PORTS_NOTE))
    elif parts.fabric.n_ranks > RANK_PAIR_LIMIT:
        notes.append(Note("info", f"more than {RANK_PAIR_LIMIT} ranks: the transfers table is per node pair"))
    if isinstance(parts.fabric.paths, ShortestPaths):
        notes += [Note("info", text) for text in _ways_inside(parts.fabric)]
    layers = parts.workload.layers_simulated
    if layers and layers > len(batch.layers):
        notes.append(Note("info", f"{layers} layers simulated by cycling {len(batch.layers)} recorded ones"))
    return notes


def rates_from(constants: Calibration, left_out: str = "") -> str:
    """What an all-to-all's rates were fitted on; ``left_out`` is how far off a cluster was that was not fitted on."""
    if constants.clusters:
        return f"fitted over {constants.clusters} clusters, not of your cluster{left_out}"
    rates = f"fitted on {len(constants.rows)} published figures" if constants.rows else "defaults"
    if held_out := dict(constants.held_out):
        rates += f" ({held_out['rows']:.0f} others are {100 * held_out['median']:.1f} % off in the median)"
    return f"{rates}, not of your cluster"


def _left_out(parts: Parts) -> str:
    """How far off the set is on a cluster left out: over the run's transport, or pooled where none shows it."""
    constants = parts.constants["dispatch"]
    transport = way_between(parts.fabric.gpu, parts.transport, parts.fabric.n_nodes)
    where = f"{constants.algorithm} over {'NVLink' if transport == 'nvlink' else transport}"
    found = error_left_out(constants.algorithm, transport)
    off = found or dict(constants.held_out)
    if not off:
        return ""
    rows = f"{off['rows']:.0f} rows over all transports, since no cluster shows {where}"
    if found:
        rows = f"{found['rows']} rows of {found['clusters']} cluster{'s' if found['clusters'] > 1 else ''}, {where}"
    return (
        f" (one left out is {100 * off['median']:.0f} % off in the median, one time in ten by more than "
        f"{100 * off['p90']:.0f} %: {rows})"
    )


def _scaled(parts: Parts) -> Iterator[str]:
    """Say where rates were measured on ports of another speed than this cluster's."""
    constants, fabric = parts.constants["dispatch"], parts.fabric
    for name, word, fitted in (("nvlink", "NVLink", constants.nvlink_peak), ("nic", "NIC", constants.nic_peak)):
        peaks = fabric.capacity[fabric.is_class(name)]
        used = fabric.n_ranks > 1 if name == "nvlink" else fabric.n_nodes > 1
        if used and len(peaks) and not np.isclose(peaks, fitted).all():
            here = " to ".join(dict.fromkeys(format_bandwidth(float(peak)) for peak in (peaks.min(), peaks.max())))
            yield (
                f"{word} rates were measured on ports of {format_bandwidth(fitted)}; here they are {here}, and the "
                f"all-to-all is taken to reach the same share of them"
            )


def _ways_inside(fabric: Fabric) -> Iterator[str]:
    """Say over which link classes the GPUs of a node reach each other, where that is not NVLink alone."""
    over = fabric.pairs_inside()
    if set(over) - {("nvlink",)}:
        ways = ", ".join(f"{count} over {' and '.join(classes)}" for classes, count in over.items())
        yield f"pairs of GPUs inside a node: {ways}"
