"""``moesim routing``: recorded routing in, looked at, and out again in the forms that benchmarks read."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from moesim.cli.routing_check import check

if TYPE_CHECKING:
    from moesim.dumps import RoutingTrace

Form = Literal["topk_idx", "npz", "parquet"]
Unit = Literal["logits", "ids", "counts"]

_SOURCE = typer.Argument(..., help="A file, or the folder with the files of all ranks.")
_UNIT = typer.Option(None, "--unit", help="What plain numbers are, where their name does not say it.")
_AXES = typer.Option(None, "--axes", help="Axes of an array in their order, such as tokens,layers,k.")
_TOP_K = typer.Option(None, "--top-k", help="Experts of a token, where the file does not say it.")
_EXPERTS = typer.Option(None, "--experts", help="Routed experts of a layer, likewise.")
_LAYERS = typer.Option(None, "--layers", help="Numbers of the layers along the layer axis, such as 0..60 or 3,4,5.")
_MAP = typer.Option(None, "--map", help="Placement map (see placement.file) of ids or counts that are of slots.")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    verb = typer.Typer(help="Recorded routing: dumps in, looked at, and out again.", no_args_is_help=True)
    verb.command("import")(import_)
    verb.command("show")(show)
    verb.command("export")(export)
    verb.command("check")(check)
    app.add_typer(verb, name="routing")


def import_(
    source: Path = _SOURCE,
    out: Path = typer.Option(..., "--out", help="The trace to write (.npz)."),
    unit: Unit | None = _UNIT,
    axes: str | None = _AXES,
    top_k: int | None = _TOP_K,
    experts: int | None = _EXPERTS,
    layers: str | None = _LAYERS,
    slot_map: Path | None = _MAP,
) -> None:
    """Read what an engine or a trainer recorded and write it as a trace of moesim's, for workload.routing.

    Example: moesim routing import expert_counts.csv --out trace.npz
    """
    from moesim.dumps import write_routing

    trace = _read(source, unit, axes, top_k, experts, layers, slot_map)
    write_routing(out, trace)
    for line in _facts(trace):
        typer.echo(line)
    typer.echo(f"written: {out}")


def show(
    source: Path = _SOURCE,
    unit: Unit | None = _UNIT,
    axes: str | None = _AXES,
    top_k: int | None = _TOP_K,
    experts: int | None = _EXPERTS,
    layers: str | None = _LAYERS,
    slot_map: Path | None = _MAP,
    ranks: int = typer.Option(8, "--ranks", min=1, help="Ranks that the experts are spread over, contiguously."),
    ranks_per_node: int = typer.Option(8, "--ranks-per-node", min=1, help="Ranks of a node."),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Print the load of each layer's experts, ranks and nodes, and how many ranks and nodes a token goes to.

    Example: moesim routing show expert_counts.csv --ranks 16
    """
    from moesim.cli.show import console, table
    from moesim.dumps.layer_loads import layer_loads

    trace = _read(source, unit, axes, top_k, experts, layers, slot_map)
    rows = layer_loads(trace, ranks, ranks_per_node)
    if as_json:
        facts: dict[str, Any] = {"unit": trace.unit, "n_experts": trace.n_experts, "top_k": trace.top_k}
        facts |= {"tokens": trace.tokens, "numbering": trace.numbering, "source": vars(trace.source)}
        typer.echo(json.dumps(facts | {"notes": list(trace.notes), "layers": rows}, indent=1))
        return
    for line in _facts(trace):
        typer.echo(line)
    names = {
        "layer": "layer", "selections": "selections", "expert_load_max_over_mean": "expert max/mean",
        "uniform_router_expert_max_over_mean": "uniform router", "experts_without_load": "idle experts",
        "rank_load_max_over_mean": "rank", "node_load_max_over_mean": "node",
        "rank_copies_per_token": "ranks/token", "node_copies_per_token": "nodes/token",
    }  # fmt: skip
    console().print(table("", tuple(names.values()), [tuple(row[name] for name in names) for row in rows]))


def export(
    source: Path = _SOURCE,
    out: Path = typer.Option(..., "--out", help="The file to write."),
    form: Form = typer.Option("npz", "--form", help="topk_idx (a layer as .npy, for DeepEP's tests), npz or parquet."),
    layer: int | None = typer.Option(None, "--layer", help="Layer for topk_idx (default: the first)."),
) -> None:
    """Write recorded routing as plain arrays or as a table.

    Example: moesim routing export trace.npz --form parquet --out routing.parquet
    """
    from moesim.dumps import read_routing
    from moesim.dumps.export_forms import exported
    from moesim.files import write_files

    write_files(out.parent, {out.name: exported(read_routing(source), form, layer)})
    typer.echo(str(out))


def _read(
    source: Path, unit: Unit | None, axes: str | None, top_k: int | None, experts: int | None, layers: str | None,
    slot_map: Path | None,
) -> "RoutingTrace":  # fmt: skip
    from moesim.dumps import read_routing
    from moesim.placement import read_map
    from moesim.scenario.axes import parse_axis

    return read_routing(
        source, unit=unit, top_k=top_k, n_experts=experts,
        axes=None if axes is None else tuple(axis.strip() for axis in axes.split(",")),
        layers=None if layers is None else [int(layer) for layer in parse_axis(layers)],
        slot_expert=None if slot_map is None else read_map(slot_map).slot_expert.astype("int64"),
    )  # fmt: skip


def _facts(trace: "RoutingTrace") -> list[str]:
    from moesim.dumps import shortened

    what = {"logits": "router logits", "ids": "expert ids", "counts": "expert counts"}[trace.unit]
    size = f"{len(trace.counts)} steps" if trace.counts is not None else f"{trace.tokens:,} tokens"
    kind = "MoE layers" if trace.numbering == "moe" else "layers"
    top = "" if trace.top_k is None else f", top-{trace.top_k}"
    first = f"{trace.source.tool}, {trace.source.form}: {what} of {size}, {len(trace.layers)} {kind} "
    return [f"{first}({shortened(trace.layers)}), {trace.n_experts} experts{top}", *(f"note: {n}" for n in trace.notes)]
