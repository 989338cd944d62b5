"""``moesim validate --rows``: a user's measurements beside what is expected of such a cluster."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from moesim.errors import InputError

if TYPE_CHECKING:
    from moesim.logs import MeasuredRow
    from moesim.validate.cluster_check import Expected, Wire

# GPUs of an NVLink domain, where neither the file nor the user says: noted.
_NODE = 8
_KINDS = {"nic": "NIC", "nvlink": "NVLink", "work": "copies by SMs", "setup": "set-up"}


def validate_rows(files: list[Path], given: list[str], as_json: bool, fail_over: str | None) -> None:
    """Read measurements, simulate each, print them; exit 4 if one is off by more than ``fail_over``."""
    from moesim.cli.compare import percentage
    from moesim.logs import read_log
    from moesim.validate.cluster_check import expect, of_clusters
    from moesim.validate.measured_rows import as_row, simulated

    limit = None if fail_over is None else percentage(fail_over)
    facts = dict(_fact(text) for text in given)
    pairs: list[tuple[MeasuredRow, Expected]] = []
    others: list[MeasuredRow] = []
    for path in files:
        log = read_log(path, facts, per_node=_NODE)
        if not as_json:
            typer.echo(f"{path}: {log.form}, {len(log.rows)} rows")
            for note in log.notes:
                typer.echo(f"  {note}")
        for row in log.rows:
            if simulated(row):
                pairs.append((row, expect(as_row(row, str(path)))))
            else:
                others.append(row)
    if not pairs and not any(row.quantity == "link_GBps" for row in others):
        names = ", ".join(sorted({f"{row.op} of {row.library}" for row in others}))
        raise InputError(f"holds {names}, which is not simulated", where=str(files[0]), fix="measure DeepEP or NCCL")
    if as_json:
        typer.echo(json.dumps([_as_dict(row, one) for row, one in pairs], indent=1))
    else:
        if pairs:
            _show(pairs)
        for (cluster, library), group in of_clusters(one for _, one in pairs).items():
            _show_wires(cluster, library, group)
        for row in others:
            alone = f"the NIC alone reaches {row.value:.1f} GB/s" if row.quantity == "link_GBps" else "not simulated"
            typer.echo(f"{row.id}, {row.op}: {alone}")
    if limit is not None and any(100 * abs(one.error) > limit for _, one in pairs):
        raise typer.Exit(4)


def _fact(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise InputError(f"{text!r} is no fact", where="--given", fix="give name=value, such as ranks=16")
    return name.strip().replace("-", "_"), value.strip()


def _as_dict(row: "MeasuredRow", one: "Expected") -> dict[str, object]:
    measured, simulated, low, high = _in_unit(row, one)
    return {
        "id": row.id,
        "cluster": row.cluster,
        "quantity": row.quantity,
        "measured": measured,
        "simulated": simulated,
        "low": low,
        "high": high,
    }


def _in_unit(row: "MeasuredRow", one: "Expected") -> tuple[float, float, float, float]:
    """In the unit of the measured row, which may be a bandwidth that is simulated as a time."""
    if row.quantity == "time_us":
        return row.value, one.simulated * 1e6, one.low * 1e6, one.high * 1e6
    counted = row.value * one.seconds
    return row.value, counted / one.simulated, counted / one.high, counted / one.low


def _show(pairs: "list[tuple[MeasuredRow, Expected]]") -> None:
    from moesim.cli.show import console, table

    lines = []
    for row, one in pairs:
        measured, simulated, low, high = _in_unit(row, one)
        lines.append(
            (
                row.id,
                f"{row.op} {row.dtype or ''}".strip(),
                f"{row.ranks} on {row.nodes}",
                row.tokens,
                row.quantity,
                measured,
                simulated,
                f"{low:.4g} to {high:.4g}",
                f"{100 * (measured / simulated - 1):+.0f} %" + ("" if low <= measured <= high else " outside"),
            )
        )
    heads = (
        "row",
        "phase",
        "ranks, nodes",
        "tokens",
        "quantity",
        "measured",
        "expected",
        "80 % of clusters",
        "measured is",
    )
    console().print(table("", heads, lines))


def _show_wires(cluster: str, library: str, group: "list[Expected]") -> None:
    from moesim.validate.cluster_check import wires

    found = wires(group)
    if not found:
        return
    known = f"fitted over {group[0].clusters} clusters" if group[0].clusters else "of one source, spread borrowed"
    typer.echo(f"\n{cluster}, {library} ({known}):")
    for wire in found:
        typer.echo(f"  {_KINDS[wire.kind]}: {_value(wire)}{': ' + wire.cause if wire.cause else ', as its peers'}")


def _value(wire: "Wire") -> str:
    from moesim.units import format_bandwidth, format_duration

    spell = format_bandwidth if "rate" in wire.term else format_duration
    return (
        f"expected {spell(wire.expected)}, measured {spell(wire.measured)} "
        f"(four clusters in five: {spell(wire.low)} to {spell(wire.high)}; {wire.rows} rows)"
    )
