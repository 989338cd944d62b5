"""``moesim routing``: routing, recorded or a scenario's, looked at, and out again in the forms that benchmarks read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from moesim.cli.routing_check import check

if TYPE_CHECKING:
    from moesim.dumps import RoutingTrace
    from moesim.workload.fit_popularity import Fit

Form = Literal["topk_idx", "npz", "parquet"]
Unit = Literal["logits", "ids", "counts"]

_SOURCE = typer.Argument(
    ..., help="A file, the folder with the files of all ranks, or a scenario, whose tokens are drawn and routed."
)
_OVERRIDE = typer.Option([], "-o", "--override", help="Of a scenario: key=value, as for run.")
_STEP = typer.Option(0, "--step", min=0, help="Of a scenario: which batch.")
_UNIT = typer.Option(None, "--unit", help="What plain numbers are, where their name does not say it.")
_AXES = typer.Option(None, "--axes", help="Axes of an array in their order, such as tokens,layers,k.")
_TOP_K = typer.Option(None, "--top-k", min=1, help="Experts of a token, where the file does not say it.")
_EXPERTS = typer.Option(None, "--experts", min=1, help="Routed experts of a layer, likewise.")
_LAYERS = typer.Option(None, "--layers", help="Numbers of the layers along the layer axis, such as 0..60 or 3,4,5.")
_MAP = typer.Option(None, "--map", help="Placement map (see placement.file) of ids or counts that are of slots.")


group = typer.Typer(
    name="routing",
    help="Routing, recorded or a scenario's: dumps in, looked at, and out again.",
    no_args_is_help=True,
)


@group.command("import")
def import_(
    source: Path = _SOURCE,
    out: Path = typer.Option(..., "--out", help="The trace to write (.npz)."),
    unit: Unit | None = _UNIT,
    axes: str | None = _AXES,
    top_k: int | None = _TOP_K,
    experts: int | None = _EXPERTS,
    layers: str | None = _LAYERS,
    slot_map: Path | None = _MAP,
    override: list[str] = _OVERRIDE,
    step: int = _STEP,
) -> None:
    """Read what an engine or a trainer recorded and write it as a trace of moesim's, for workload.routing.

    Example: moesim routing import expert_counts.csv --out trace.npz
    """
    from moesim.dumps import TRACE, write_routing
    from moesim.files import check_replaceable

    check_replaceable(out, TRACE)
    trace = _read(source, unit, axes, top_k, experts, layers, slot_map, override, step)
    write_routing(out, trace)
    for line in _facts(trace):
        typer.echo(line)
    typer.echo(f"written: {out}")


@group.command("show")
def show(
    source: Path = _SOURCE,
    unit: Unit | None = _UNIT,
    axes: str | None = _AXES,
    top_k: int | None = _TOP_K,
    experts: int | None = _EXPERTS,
    layers: str | None = _LAYERS,
    slot_map: Path | None = _MAP,
    ranks: int = typer.Option(
        8, "--ranks", min=1, max=65_536, help="Ranks that the experts are spread over, contiguously."
    ),
    ranks_per_node: int = typer.Option(8, "--ranks-per-node", min=1, max=65_536, help="Ranks of a node."),
    fit: bool = typer.Option(False, "--fit", help="Fit the synthetic workload that is like it, and print its block."),
    override: list[str] = _OVERRIDE,
    step: int = _STEP,
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Print the load of each layer's experts, ranks and nodes, and how many ranks and nodes a token goes to.

    Example: moesim routing show expert_counts.csv --ranks 16
    """
    from moesim.cli.show import console, table
    from moesim.dumps.layer_loads import layer_loads
    from moesim.workload.fit_popularity import fit_popularity

    trace = _read(source, unit, axes, top_k, experts, layers, slot_map, override, step)
    rows = layer_loads(trace, ranks, ranks_per_node)
    found = fit_popularity(trace) if fit else None
    if as_json:
        facts: dict[str, Any] = {"unit": trace.unit, "n_experts": trace.n_experts, "top_k": trace.top_k}
        facts |= {"tokens": trace.tokens, "numbering": trace.numbering, "source": vars(trace.source)}
        facts |= {"notes": list(trace.notes), "layers": rows} | ({"fit": vars(found)} if found else {})
        typer.echo(json.dumps(facts, indent=1))
        return
    for line in _facts(trace):
        typer.echo(line)
    names = {
        "layer": "layer", "selections": "selections", "expert_load_max_over_mean": "expert max/mean",
        "uniform_router_expert_max_over_mean": "uniform router", "experts_without_load": "idle experts",
        "ranks_without_load": "idle ranks", "rank_load_max_over_mean": "rank", "node_load_max_over_mean": "node",
        "rank_copies_per_token": "ranks/token", "node_copies_per_token": "nodes/token",
    }  # fmt: skip
    console().print(table("", tuple(names.values()), [tuple(row[name] for name in names) for row in rows]))
    if found is not None:
        _print_fit(found)


def _print_fit(found: "Fit") -> None:
    from moesim.cli.show import console, table

    columns = {"sigma": "sigma", "r2_lognormal": "R2 lognormal", "exponent": "exponent", "r2_zipf": "R2 zipf"}
    rows = [(row["layer"], *(row[name] for name in columns)) for row in found.layers]
    console().print(table("", ("layer", *columns.values()), rows))
    recorded, mean, low, high = found.max_over_mean
    said = [
        f"expert max/mean, mean of the layers: {recorded:.3g}; drawn from the fit {mean:.3g} ({low:.3g} to {high:.3g})"
    ]
    if found.shared is not None:
        two, alone, drawn = (f"{number:.3g}" for number in found.shared)
        said.append(f"experts that two tokens of a sequence share: {two}; from the fit {drawn}, independent {alone}")
    said += [f"note: {note}" for note in found.notes]
    said += [
        f"workload: {{synthetic: {{{', '.join(f'{key}: {value}' for key, value in found.block.items())}}}}}",
        f"or, by the fullest expert: {{synthetic: {{kind: skew, max_violation: {recorded - 1:.3g}}}}}",
    ]
    typer.echo("\n".join(said))


@group.command("export")
def export(
    source: Path = _SOURCE,
    out: Path = typer.Option(..., "--out", help="The file to write."),
    form: Form = typer.Option("npz", "--form", help="topk_idx (a layer as .npy, for DeepEP's tests), npz or parquet."),
    layer: int | None = typer.Option(None, "--layer", help="Layer for topk_idx (default: the first)."),
    rank: int | None = typer.Option(None, "--rank", min=0, help="Only the tokens that start on this rank."),
    override: list[str] = _OVERRIDE,
    step: int = _STEP,
) -> None:
    """Write recorded routing, or a scenario's, as plain arrays or as a table.

    Example: moesim routing export trace.npz --form parquet --out routing.parquet
    """
    from moesim.dumps.export_forms import KINDS, exported
    from moesim.errors import InputError
    from moesim.files import check_replaceable, write_files

    if layer is not None and form != "topk_idx":
        raise InputError(f"{form} has every layer", "--layer", "leave it out, or --form topk_idx")
    check_replaceable(out, KINDS[form])
    trace = _read(source, override=override, step=step)
    write_files(out.parent, {out.name: exported(trace, form, layer, rank)})
    typer.echo(str(out))


group.command("check")(check)


def _read(
    source: Path, unit: Unit | None = None, axes: str | None = None, top_k: int | None = None,
    experts: int | None = None, layers: str | None = None, slot_map: Path | None = None,
    override: Sequence[str] = (), step: int = 0,
) -> "RoutingTrace":  # fmt: skip
    from moesim.dumps import read_routing
    from moesim.errors import InputError
    from moesim.placement import read_map
    from moesim.scenario import load_scenario, shipped_names
    from moesim.scenario.axes import parse_axis

    named = str(source) in shipped_names("scenarios") and not source.exists()
    if named or source.suffix.lower() in (".yaml", ".yml"):
        from moesim.run.drawn_routing import drawn_routing

        if any(given is not None for given in (unit, axes, top_k, experts, layers, slot_map)):
            what = "a scenario says itself what its routing is"
            raise InputError(what, str(source), "leave out --unit, --axes, --top-k, --experts, --layers and --map")
        return drawn_routing(load_scenario(str(source), overrides=override), step)
    if override or step:
        raise InputError("not a scenario", str(source), "only those have keys to override, and steps to draw")
    numbers = None if layers is None else list(parse_axis(layers))
    if numbers is not None and not all(type(number) is int for number in numbers):
        raise InputError(f"{layers!r:.60} are no numbers of layers", "--layers", "give them as 0..60 or 3,4,5")
    return read_routing(
        source, unit=unit, top_k=top_k, n_experts=experts,
        axes=None if axes is None else tuple(axis.strip() for axis in axes.split(",")),
        layers=numbers,
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
