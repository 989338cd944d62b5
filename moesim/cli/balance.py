"""``moesim balance``: what keeps experts evenly loaded over a training run, on the wires and in time too."""

import itertools
import json
import math
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from moesim.scenario import Scenario

# Columns on a terminal: what they are called, and a factor.
_SHOWN = {
    "max_violation_batch": ("MaxVio batch", 1.0), "max_violation_global": ("MaxVio global", 1.0),
    "rank_load_max_over_mean": ("ranks", 1.0), "node_load_max_over_mean": ("nodes", 1.0),
    "bias_spread": ("bias spread", 1.0), "dropped_share": ("dropped %", 1e2), "gate_mass_lost": ("gate lost %", 1e2),
    "layer_time_s": ("layer us", 1e6), "dispatch_algbw_bytes_per_s": ("dispatch GB/s", 1e-9),
}  # fmt: skip
_ROWS = 6
_SCHEMA_VERSION = "1"


def balance(
    scenario: str = typer.Argument(..., help="A scenario file, or the name of one that ships."),
    override: list[str] = typer.Option([], "-o", "--override", help="key=value."),
    method: str = typer.Option("v1,v2,v3", "--method", help="Ways to balance, comma-separated: none, v1, v2, v3."),
    steps: int = typer.Option(1000, "--steps", min=1, max=10**7, help="Training steps."),
    every: int | None = typer.Option(None, "--every", min=1, help="Steps between rows; default a fortieth of them."),
    sequences: int = typer.Option(8, "--sequences", min=1, max=65_536, help="Sequences of a training step."),
    length: int = typer.Option(256, "--length", min=1, max=1 << 20, help="Tokens of a sequence."),
    layers: int = typer.Option(1, "--layers", min=1, max=1000, help="Layers, each with experts of its own."),
    domains: int = typer.Option(0, "--domains", min=0, max=1024, help="Domains that sequences are from; 0: none."),
    domain_steps: float = typer.Option(math.inf, "--domain-steps", min=1, help="Steps over which a domain turns."),
    bias_update: Literal["sign", "magnitude"] = typer.Option("sign", "--bias-update", help="How v3's bias moves."),
    bias_form: Literal["additive", "multiplicative"] = typer.Option(
        "additive", "--bias-form", help="How v3's bias acts; a multiplicative one without groups."
    ),
    fit_on: list[str] = typer.Option([], "--fit", help="Snapshots of a run of this model to fit constants on."),
    against: list[str] = typer.Option([], "--against", help="Snapshots to compare with and not to fit on."),
    logits_fixed: bool = typer.Option(
        False, "--logits-fixed", help="Let only the bias move, on the scenario's own logits (v3)."
    ),
    from_zero: bool = typer.Option(
        True, "--from-zero/--from-recorded", help="With --logits-fixed: no bias at first, or the recorded one."
    ),
    out: Path | None = typer.Option(None, "--out", help="Folder for report.html and balance.json."),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Simulate how V1, V2 and V3 keep experts evenly loaded over a training run, with traffic and time.

    Without --fit the constants are those of moesim's own small model: an illustration of any other.

    Example: moesim balance quickstart --steps 200 --every 50
    """
    from moesim.balance import Text
    from moesim.errors import InputError
    from moesim.files import write_files
    from moesim.output_folder import BALANCE, check_ours
    from moesim.scenario import load_scenario

    if "v3" not in method and (bias_update, bias_form) != ("sign", "additive"):
        raise InputError("--bias-update and --bias-form are v3's", "--method", "leave them out, or add v3")
    loaded = load_scenario(scenario, overrides=override)
    if out is not None:
        check_ours(out, BALANCE)
    if logits_fixed:
        _bias_alone(loaded, steps, from_zero, as_json)
        return
    ways = [name.strip() for name in method.split(",")], bias_form == "multiplicative", bias_update == "magnitude"
    text = Text(sequences, length, domains, domain_steps)
    data = _study(loaded, ways, text, (steps, every or max(1, steps // 40), layers), (fit_on, against))
    if out is not None:
        from moesim.report.balance_page import render_balance

        files = {
            "balance.json": json.dumps(data, indent=1),
            "report.html": render_balance(data),
        }
        write_files(out, {name: content.encode() for name, content in files.items()})
        typer.echo(f"report: {out / 'report.html'}", err=as_json)
    if as_json:
        typer.echo(json.dumps(data, indent=1))
    else:
        _show(data)


def _study(
    scenario: "Scenario", ways: tuple[list[str], bool, bool], text: Any, size: tuple[int, int, int],
    snapshots: tuple[list[str], list[str]],
) -> dict[str, Any]:  # fmt: skip
    """The study as JSON and the page have it."""
    from moesim.balance import shipped_constants
    from moesim.cli.progress_bar import progress_bar
    from moesim.layer import build_parts
    from moesim.run import balance_study as study
    from moesim.run.balance_fit import fit
    from moesim.run.balance_snapshots import read_snapshots

    parts, (steps, _, layers) = build_parts(scenario), size
    methods = study.methods_of(parts, *ways)
    fitted_runs, others = ([read_snapshots(path, parts.router.n_experts) for path in paths] for paths in snapshots)
    rows = [row for run in (*fitted_runs, *others) for row in study.recorded_rows(parts, run)]
    constants, fitted_on = (
        fit(fitted_runs, lambda line: typer.echo(line, err=True)) if fitted_runs else (shipped_constants(), ())
    )
    done, total = itertools.count(1), len(methods) * (steps + 1)
    with progress_bar(quiet=False, after_s=1.0) as watch:
        for method in methods:
            rows += study.study_method(
                parts, method, constants, text, *size, lambda: watch("steps", next(done), total)
            )  # fmt: skip
    compared = study.compare([*fitted_runs, *others], constants, fitted_on, max(3, layers), parts.seed)
    ranks = f"{parts.fabric.n_ranks} ranks of {parts.fabric.name}"
    return {
        "schema": _SCHEMA_VERSION,
        "title": f"{scenario.name}: {parts.router.n_experts} experts on {ranks}",
        "notes": study.what_to_know(compared, fitted_on),
        "floors": study.floors(parts, constants),
        "rows": rows,
        "comparisons": compared,
        "constants": {
            name: {"value": getattr(constants, name), "source": source} for name, source in constants.sources.items()
        },
    }


def _show(data: dict[str, Any]) -> None:
    from moesim.cli.show import console, table

    terminal, columns = console(), [name for name in _SHOWN if any(row.get(name) for row in data["rows"])]
    shown = []
    for name in dict.fromkeys(row["method"] for row in data["rows"]):
        own = [row for row in data["rows"] if row["method"] == name]
        for i in sorted({round(i * (len(own) - 1) / (_ROWS - 1)) for i in range(_ROWS)}):
            cells = ("-" if own[i].get(c) is None else own[i][c] * _SHOWN[c][1] for c in columns)
            shown.append((name, own[i]["step"], *cells))
    terminal.print(table(data["title"], ("method", "step", *(_SHOWN[name][0] for name in columns)), shown))
    floors = data["floors"]
    typer.echo(
        f"\nmax/mean of an evaluation of even experts: {floors['sequences']:.2f} (tokens of a sequence go together); "
        f"of a uniform router {floors['uniform_router']:.2f}"
    )
    for one in data["comparisons"]:
        errors = [(f"{median(one['factors']):.2f}", f"{max(one['factors']):.2f}"), ("", "")]
        rows = [
            (name, *(f"{value:.2f}" for value in one[name]), *error)
            for name, error in zip(("simulated", "recorded"), errors, strict=True)
        ]
        if one["null"]:
            guess = (f"{median(one['null_factors']):.2f}", f"{max(one['null_factors']):.2f}")
            rows.append((f"as {one['null']} was", *[""] * len(one["steps"]), *guess))
        heads = ("max/mean at step", *map(str, one["steps"]), "median factor", "worst")
        title = f"\n{one['name']}, {'fitted' if one['fitted'] else 'held out'}"
        terminal.print(table(title, heads, rows))
    for note in data["notes"]:
        typer.echo(note)


def _bias_alone(scenario: "Scenario", steps: int, from_zero: bool, as_json: bool) -> None:
    from moesim.cli.show import console, table
    from moesim.run.bias_study import bias_dynamics

    rows = bias_dynamics(scenario, steps, from_zero)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    shown = rows[:: max(1, len(rows) // 20)]
    shown = shown if shown[-1] is rows[-1] else [*shown, rows[-1]]
    title = f"bias by itself, from {'zero' if from_zero else 'the recorded one'}; logits fixed"
    console().print(table(title, tuple(rows[0]), [tuple(row.values()) for row in shown]))
