"""A run's traffic on a real cluster: the matrix that nccl-tests' ``alltoallv_perf`` reads, and its answer beside ours.

``alltoallv_perf`` (NVIDIA/nccl-tests, ``src/alltoallv.cu``) takes a text file of bytes from rank i to rank j
(``NCCL_TESTS_ALLTOALLV_MATRIX_FILE``), rounds each down to 16 bytes, and sends them with grouped ``ncclSend`` and
``ncclRecv``: the all-to-all that moesim calls ``nccl-direct``. So what is compared is that, whatever library the run
itself was about. Its bandwidths are of the rank with the most bytes sent or received.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.bounded_text import number, read_json, whole
from moesim.broken_files import content, reading
from moesim.cluster import Fabric, load_topology, overridden
from moesim.errors import InputError
from moesim.located_yaml import parse_yaml
from moesim.logs import BOUNDS, TIME
from moesim.results import Result
from moesim.scenario import Cluster
from moesim.timeline import run_phase
from moesim.traffic import Copies, calibration, payload_bytes, phase_flows

ALGORITHM = "nccl-direct"
_ALIGNMENT = 16
# The bandwidth is printed with six digits after the point, in GB/s; more than this off is another matrix.
_SAME_BYTES = 0.01
_MOST_BYTES = 256 * 10**6
_MOST_OF_A_PAIR = 1 << 44

Matrix = NDArray[np.int64]


@dataclass(frozen=True)
class Measurement:
    """What ``alltoallv_perf -J`` reports: seconds, and the bytes of the busiest rank that its bandwidth implies."""

    time_s: float
    busiest_bytes: float


def traffic_matrix(result: Result, phase: str, layer: int | None, copies: str) -> Matrix:
    """Bytes from rank to rank in one phase of one layer, multiples of 16; a rank's own part on the diagonal.

    Args:
        result: of the run.
        phase: ``dispatch`` or ``combine``.
        layer: recorded layer; None for the first.
        copies: what counts, each ``selection``, or a copy per distinct ``rank``.

    Raises:
        InputError: no such layer in the run.
    """
    name = {"selection": "selections", "rank": "rank_copies"}[copies]
    layers = sorted(int(key.rsplit("layer", 1)[1]) for key in result.traffic if key.startswith(f"{name}_layer"))
    wanted = layers[0] if layer is None else layer
    if wanted not in layers:
        raise InputError(
            f"the run has no layer {wanted}", where="--layer", fix=f"layers: {', '.join(map(str, layers))}"
        )
    counted = result.traffic[f"{name}_layer{wanted}"]
    scenario = _scenario(result)
    size = counted.astype(np.int64) * payload_bytes(scenario["model"]["hidden"], scenario["alltoall"][f"{phase}_dtype"])
    return (size if phase == "dispatch" else size.T) // _ALIGNMENT * _ALIGNMENT


def fabric_of(result: Result, topology: str | None) -> Fabric:
    """The ranks that a run was on.

    Args:
        result: of the run.
        topology: name or path, where the run's own was a file; None for the run's.

    Raises:
        InputError: there is no such topology, or it has fewer GPUs.
    """
    cluster, ranks = Cluster.model_validate(_scenario(result)["cluster"]), int(result.summary["ranks"])
    try:
        fabric = load_topology(topology or cluster.name, cluster.nic_bandwidth)
    except InputError as error:
        raise InputError(error.what, where=error.where, fix="give --topology") from None
    overrides = [(each.where, each.bandwidth) for each in cluster.overrides]
    return overridden(fabric, overrides).first_ranks(ranks)


def _scenario(result: Result) -> Any:
    """The run's scenario as plain data: its files may have gone."""
    return parse_yaml(result.scenario_yaml, "scenario.resolved.yaml").data


def busiest_bytes(matrix: Matrix) -> int:
    """Most bytes that a rank sends or receives, its own part included; the least ``-e`` that the test accepts."""
    return int(max(matrix.sum(axis=1).max(), matrix.sum(axis=0).max()))


def as_text(matrix: Matrix) -> str:
    """The file that the test reads: a row per sender."""
    return "".join(" ".join(map(str, row)) + "\n" for row in matrix.tolist())


def read_matrix(path: Path, n_ranks: int) -> Matrix:
    """Read a matrix file back.

    Raises:
        InputError: not a square of non-negative numbers, or of another number of ranks.
    """
    fix = "export it again from this run"
    with reading(path, fix, "is not readable as numbers"):
        lines = content(path, _MOST_BYTES).decode().splitlines()
    rows: list[list[int]] = []
    for line, text in enumerate(lines, 1):
        try:
            cells = [whole(cell, 0, _MOST_OF_A_PAIR) for cell in text.split()]
        except ValueError as error:
            raise InputError(f"a cell is no size: {error}", f"{path}:{line}", fix) from None
        rows += [cells] if cells else []
    if len(rows) != n_ranks or any(len(row) != n_ranks for row in rows):
        raise InputError(f"is not a {n_ranks} x {n_ranks} matrix", where=str(path), fix=fix)
    return np.array(rows, np.int64) // _ALIGNMENT * _ALIGNMENT


def predicted_s(fabric: Fabric, matrix: Matrix, source: str = "auto") -> float:
    """Seconds until the last rank is done, all entering together. The diagonal, a copy on the GPU, takes no time.

    Args:
        fabric: the cluster.
        matrix: bytes from rank to rank.
        source: of the constants: ``auto``, a set's name, or a file.
    """
    constants = calibration(ALGORITHM, fabric.gpu, source=source)
    copies = Copies(matrix, matrix, np.zeros((fabric.n_ranks, fabric.n_nodes), np.int64))
    return float(run_phase(fabric, phase_flows(fabric, copies, constants, "dispatch", 1)).leave_s.max())


def read_measurement(path: Path) -> Measurement:
    """Read the JSON that ``alltoallv_perf -J`` writes.

    Raises:
        InputError: not such a file, or not one result in it.
    """
    fix = "give the file of alltoallv_perf -J, run with the exported matrix"
    with reading(path, fix, "is not the result of one alltoallv_perf size"):
        found: Any = read_json(content(path, _MOST_BYTES).decode("utf-8-sig"), str(path))
        (row,) = found["results"]
        measured = row["out_of_place"] or row["in_place"]
        time_us, bandwidth = number(measured["time"]), number(measured["alg_bw"])
        least, most = BOUNDS[TIME]
        if not (least <= time_us <= most and 0 <= bandwidth <= BOUNDS["busbw_GBps"][1]):
            raise InputError(f"time {time_us:g} us and bandwidth {bandwidth:g} GB/s", where=str(path), fix=fix)
    return Measurement(time_us * 1e-6, bandwidth * 1e9 * time_us * 1e-6)


def check_same(measured: Measurement, matrix: Matrix, where: str) -> None:
    """Refuse a measurement of other bytes than the matrix's.

    Raises:
        InputError: its time and bandwidth imply other bytes of the busiest rank.
    """
    bytes_here = busiest_bytes(matrix)
    if abs(measured.busiest_bytes - bytes_here) > _SAME_BYTES * bytes_here:
        what = (
            f"was measured with {measured.busiest_bytes:,.0f} bytes on the busiest rank, the matrix has {bytes_here:,}"
        )
        raise InputError(what, where=where, fix="give --phase, --layer, --copies or --matrix of that measurement")
