"""``moesim calibrate``: fit the constants of an all-to-all to measurements."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import typer

if TYPE_CHECKING:
    from moesim.cluster import Fabric
    from moesim.validate.published_row import Row
    from moesim.validate.refit import Refit


# Error left on a fitted row that is warned of.
_BEYOND = 0.10


def calibrate(
    files: list[Path] = typer.Argument(None, help="Logs of nccl-tests or DeepEP's tests, or CSV files."),
    algorithm: str = typer.Option("", "--algorithm", "-a", help="All-to-all that was measured."),
    gpu: str = typer.Option("", "--gpu", "-g", help="GPU of the cluster, lower case: h100; default the topology's."),
    topology: str = typer.Option("", "--topology", help="Your cluster, for its ports: a topology's name or file."),
    nvlink_bandwidth: str = typer.Option("", "--nvlink-bandwidth", help="NVLink of a GPU, one direction: 450GB/s."),
    nic_bandwidth: str = typer.Option("", "--nic-bandwidth", help="NICs of a GPU, one direction: 400Gb/s."),
    transport: str = typer.Option(
        "", "--transport", help="Who posts to the NIC: ibgda, ibrc, proxy, efa-gda, efa-proxy."
    ),
    out: Path | None = typer.Option(None, "--out", help="File to write."),
    start: str = typer.Option("auto", "--start", help="Set of constants to start from: a name or a file."),
    ranks: int = typer.Option(0, "--ranks", min=0, help="Ranks that were measured, where the file does not say."),
    gpus_per_node: int = typer.Option(
        0, "--gpus-per-node", min=0, help="GPUs of an NVLink domain; else 8, or the topology's."
    ),
    tokens: int = typer.Option(0, "--tokens", min=0, help="Tokens per rank, where the file does not say."),
    hidden: int = typer.Option(0, "--hidden", min=0, help="Channels of a token, where the file does not say."),
    top_k: int = typer.Option(0, "--top-k", min=0, help="Experts of a token, where the file does not say."),
    experts: int = typer.Option(0, "--experts", min=0, help="Experts of the layer, where the file does not say."),
) -> None:
    """Fit all-to-all constants to measurements of your cluster, through the simulation, and write them as a file.

    Use it with -o alltoall.calibration=my.yaml. Read are nccl-tests' tables and JSON, DeepEP's test_internode,
    test_intranode, test_low_latency and test_ep, also inside a whole terminal log or issue. CSV columns: op (dispatch,
    combine, alltoall), ranks, tokens, time_us; optional nodes, dtype, sms, hidden, experts, top_k; tokens are bytes per
    rank for nccl-*.

    Four rows of a phase are usually enough: the smallest and the largest message on the fewest ranks, the smallest on
    a middle number of ranks, and on the most ranks one two thirds of the way from smallest to largest, in doublings.

    Name your cluster with --topology, or its ports: constants follow them, and no rate passes them.

    Example: moesim calibrate alltoall.json -a nccl-direct -g h100 --out my.yaml
    """
    from moesim.errors import InputError

    if not files:
        raise InputError("no measurements", fix="give a file")
    cluster = _Cluster.named(gpu, topology, nvlink_bandwidth, nic_bandwidth, transport)
    if not algorithm or not cluster.gpu:
        raise InputError("which algorithm, on which GPU?", fix="give --algorithm, and --gpu or --topology")
    said: dict[str, str | float] = {
        "ranks": ranks, "tokens": tokens, "hidden": hidden, "top_k": top_k, "experts": experts,
        "gpus_per_node": gpus_per_node or cluster.gpus_per_node, "transport": transport,
    }  # fmt: skip
    given: dict[str, str | float] = {"gpu_moesim": cluster.gpu}
    given |= {name: value for name, value in said.items() if value}
    _measured(files, algorithm, cluster, out, start, given)


@dataclass(frozen=True)
class _Cluster:
    """The user's cluster as far as it was named; bytes/s of a GPU's ports, 0 where nothing was said."""

    gpu: str
    nvlink: float
    nic: float
    gpus_per_node: int = 0
    nic_card: str = "connectx"
    fabric: "Fabric | None" = None

    @classmethod
    def named(cls, gpu: str, topology: str, nvlink: str, nic: str, transport: str) -> "_Cluster":
        """What the options say; NICs of another speed win over the topology's."""
        from moesim.alltoall_library import Transport
        from moesim.errors import InputError
        from moesim.mistakes import did_you_mean
        from moesim.units import parse_bandwidth, parse_nic_bandwidth

        transports = get_args(Transport)
        if transport and transport not in transports:
            fix = did_you_mean(transport, transports, "transports")
            raise InputError(f"unknown transport {transport!r}", where="--transport", fix=fix)
        peaks = {}
        for option, text, parse in (("nvlink", nvlink, parse_bandwidth), ("nic", nic, parse_nic_bandwidth)):
            try:
                peaks[option] = parse(text) if text else 0.0
            except InputError as error:
                raise InputError(error.what, f"--{option}-bandwidth", error.fix) from None
        nvlink_peak, nic_peak = peaks["nvlink"], peaks["nic"]
        if gpu and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,31}", gpu):
            raise InputError(f"{gpu!r:.40} is no GPU's name", where="--gpu", fix="lower case, such as h100")
        if not topology:
            return cls(gpu, nvlink_peak, nic_peak)
        from moesim.cluster import load_topology
        from moesim.validate.clusters import ports_of

        if nvlink:
            raise InputError(
                "the topology has its own NVLink", where="--nvlink-bandwidth", fix="leave one of the two out"
            )
        fabric = load_topology(topology, nic_bandwidth=nic_peak or None)
        if gpu and gpu != fabric.gpu:
            what = f"{topology} has {fabric.gpu}, not {gpu}"
            raise InputError(what, where="--topology", fix="leave out --gpu, or choose another topology")
        return cls(fabric.gpu, *ports_of(fabric), fabric.ranks_per_node, fabric.nic_card, fabric)


def _check_topology(fabric: "Fabric", rows: "list[Row]") -> None:
    """Refuse rows that the topology cannot have had."""
    from moesim.errors import InputError

    for row in rows:
        if row.ranks > fabric.n_ranks or fabric.first_ranks(row.ranks).n_nodes != row.nodes:
            what = f"{row.key} on {row.nodes} nodes, but {fabric.name} has {fabric.n_ranks} GPUs"
            fix = "name the topology that was measured, or --nic-bandwidth"
            raise InputError(f"{what}, {fabric.ranks_per_node} in a node", where="--topology", fix=fix)


def _measured(
    files: list[Path], algorithm: str, cluster: _Cluster, out: Path | None, start: str, given: dict[str, str | float]
) -> None:
    from moesim.alltoall_library import transport_by_card
    from moesim.errors import InputError
    from moesim.files import check_replaceable, marked, write_files
    from moesim.logs import rack_scale, read_log
    from moesim.mistakes import did_you_mean
    from moesim.traffic import gpu_ports
    from moesim.traffic.constant_sets import find_set
    from moesim.units import format_bandwidth
    from moesim.validate.clusters import first_ranks_of
    from moesim.validate.measured_rows import LIBRARIES, rows_to_fit
    from moesim.validate.refit import refit_measured
    from moesim.validate.set_file import spell_set

    if algorithm not in LIBRARIES:
        fix = did_you_mean(algorithm, list(LIBRARIES), "algorithms")
        raise InputError(f"measurements of {algorithm!r} are not read", where="--algorithm", fix=fix)
    check_replaceable(out, "calibration")
    gpu = cluster.gpu
    given = {"transport": transport_by_card(algorithm, cluster.nic_card)} | given
    rows = []
    for path in files:
        log = read_log(path, given, None if rack_scale(gpu) else 8)
        used = rows_to_fit(log, algorithm, gpu, str(path))
        rows += used
        for note in (f"{log.form}, {len(used)} of {len(log.rows)} rows are fitted", *log.notes):
            typer.echo(f"{path}: {note}", err=True)
    transports = sorted({row.transport for row in rows if row.nodes > 1}) or [str(given["transport"])]
    nics = sorted({row.nic_peak for row in rows if row.nic_peak and row.nodes > 1})
    for what, several in (("transports", transports), ("NIC speeds", [] if cluster.nic else nics)):
        if len(several) > 1:
            text = ", ".join(map(str, several))
            raise InputError(f"the rows are of several {what}: {text}", fix="calibrate the rows of each by themselves")
    begin = find_set(algorithm, gpu, start, transports[0])
    nvlink, nic, sms = gpu_ports(gpu, begin)
    named = cluster.nic or (nics[0] if nics else 0.0)
    nvlink, nic = cluster.nvlink or nvlink, named or nic
    begin = replace(begin.with_ports(nvlink, nic), sms=sms, transport=transports[0])
    assumed = "" if named else "; nobody named the NIC: give --topology or --nic-bandwidth"
    typer.echo(f"ports of a GPU: NVLink {format_bandwidth(nvlink)}, NIC {format_bandwidth(nic)}{assumed}", err=True)
    on = None
    if cluster.fabric is not None:
        _check_topology(cluster.fabric, rows)
        on = first_ranks_of(cluster.fabric)
    found = refit_measured(rows, begin, gpu, files, bool(named), on)
    _show(found, f"{algorithm} on {gpu}, from {begin.name}")
    _show_moved(found)
    for row, error in zip(found.rows, found.fitted.errors, strict=True):
        if abs(error) > _BEYOND:
            typer.echo(f"warning: {row.table}: {row.key}: simulated is still {100 * error:+.0f} % off", err=True)
    if out is not None:
        write_files(out.parent, {out.name: marked("calibration", spell_set(found.constants).encode())})
        typer.echo(f"{out}: use it with -o alltoall.calibration={out}")


def _show(found: "Refit", what: str) -> None:
    from moesim.cli.show import console, table

    lines = [
        (row.key, row.quantity, row.published, f"{100 * error:+.1f} %")
        for row, error in zip(found.rows, found.fitted.errors, strict=True)
    ]
    typer.echo(
        f"\n{what}: {len(lines)} row{'s' * (len(lines) > 1)}, error left in time: median "
        f"{100 * found.fitted.off.median:.1f} %, 90th percentile {100 * found.fitted.off.p90:.1f} %"
    )
    console().print(table("", ("row", "quantity", "measured", "error"), lines))


def _show_moved(found: "Refit") -> None:
    """Print what the user's rows changed, and what they leave open."""
    from moesim.cli.show import console, table

    lines = [(one.constant, one.of, one.before, one.after) for one in found.moved]
    typer.echo("\nconstants that moved; the others are as they were" if lines else "\nno constant moved")
    if lines:
        console().print(table("", ("constant", "of", "before", "now"), lines))
    for line in found.left_open:
        typer.echo(f"open: {line}")
