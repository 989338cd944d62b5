"""``moesim balance``: what keeps experts evenly loaded over a training run, on the wires and in time too."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from moesim.run.balance_study import Study
    from moesim.scenario import Scenario

_SHOWN = {
    "max_violation_batch": "MaxVio batch",
    "max_violation_global": "MaxVio global",
    "rank_load_max_over_mean": "ranks",
    "node_load_max_over_mean": "nodes",
    "bias_spread": "bias spread",
    "dropped_share": "dropped %",
    "gate_mass_lost": "gate lost %",
    "layer_time_s": "layer us",
    "dispatch_algbw_bytes_per_s": "dispatch GB/s",
}
_SCALE = {"dropped_share": 100.0, "gate_mass_lost": 100.0, "layer_time_s": 1e6, "dispatch_algbw_bytes_per_s": 1e-9}
_ROWS = 6


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command("balance")(balance)


def balance(
    scenario: str = typer.Argument(..., help="A scenario file, or the name of one that ships."),
    override: list[str] = typer.Option([], "-o", "--override", help="key=value."),
    method: str = typer.Option("v1,v2,v3", "--method", help="Ways to balance, comma-separated: none, v1, v2, v3."),
    steps: int = typer.Option(1000, "--steps", min=1, help="Training steps."),
    every: int | None = typer.Option(None, "--every", min=1, help="Steps between rows; default a fortieth of them."),
    sequences: int = typer.Option(8, "--sequences", min=1, help="Sequences of a training step."),
    length: int = typer.Option(256, "--length", min=1, help="Tokens of a sequence."),
    layers: int = typer.Option(1, "--layers", min=1, help="Layers, each with experts of its own."),
    domains: int = typer.Option(0, "--domains", min=0, help="Domains that sequences are from; 0: none."),
    domain_steps: float | None = typer.Option(None, "--domain-steps", min=1, help="Steps over which a domain turns."),
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
    out: Path | None = typer.Option(None, "--out", help="Folder for report.html, balance.json and balance.csv."),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Simulate how V1, V2 and V3 keep experts evenly loaded over a training run, with traffic and time.

    Without --fit the constants are those of moesim's own small model: an illustration of any other.

    Example: moesim balance quickstart --steps 200 --every 50
    """
    from moesim.scenario import load_scenario

    loaded = load_scenario(scenario, overrides=override)
    if logits_fixed:
        _bias_alone(loaded, steps, from_zero, as_json)
        return
    found, title = _study(
        loaded, method.split(","), steps, every, layers, fit_on, against,
        text={"sequences": sequences, "length": length, "domains": domains, "domain_steps": domain_steps},
        bias=(bias_form == "multiplicative", bias_update == "magnitude"),
    )  # fmt: skip
    data = _plain(found, title)
    if out is not None:
        _write(out, data)
        typer.echo(f"report: {out / 'report.html'}", err=as_json)
    if as_json:
        typer.echo(json.dumps(data, indent=1))
    else:
        _show(data)


def _study(
    scenario: "Scenario", methods: list[str], steps: int, every: int | None, layers: int, fit_on: list[str],
    against: list[str], text: dict[str, Any], bias: tuple[bool, bool],
) -> tuple["Study", str]:  # fmt: skip
    import itertools
    import math

    from moesim.balance import Text, shipped_constants
    from moesim.cli.progress_bar import progress_bar
    from moesim.layer import build_parts
    from moesim.run.balance_fit import fit
    from moesim.run.balance_snapshots import read_snapshots
    from moesim.run.balance_study import Study, compare, floors, methods_of, recorded_rows, study_method

    parts = build_parts(scenario)
    ways = methods_of(parts, [name.strip() for name in methods], *bias)
    experts = parts.router.n_experts
    fitted_runs = [read_snapshots(path, experts) for path in fit_on]
    others = [read_snapshots(path, experts) for path in against]
    rows = [row for run in (*fitted_runs, *others) for row in recorded_rows(parts, run)]
    constants, used = shipped_constants(), {}
    if fitted_runs:
        made = fit(fitted_runs, lambda line: typer.echo(line, err=True))
        constants, used = made.constants, made.used
    own = Text(**text | {"domain_steps": text["domain_steps"] or math.inf})
    done, total = itertools.count(1), len(ways) * (steps + 1)
    with progress_bar(quiet=False, after_s=1.0) as watch:
        for way in ways:
            rows += study_method(
                parts, way, constants, own, steps, every or max(1, steps // 40), layers,
                lambda: watch("steps", next(done), total),
            )  # fmt: skip
    comparisons = compare([*fitted_runs, *others], constants, used, max(3, layers), parts.seed)
    study = Study(rows, floors(parts, constants), comparisons, constants, tuple(used))
    return study, f"{scenario.name}: {experts} experts on {parts.fabric.n_ranks} ranks of {parts.fabric.name}"


def _plain(study: "Study", title: str) -> dict[str, Any]:
    """The study as JSON and the page take it."""
    constants = {
        one.name: {"value": getattr(study.constants, one.name), "source": study.constants.sources[one.name]}
        for one in fields(study.constants)
        if one.name != "sources"
    }
    return {
        "title": title,
        "fitted_on": list(study.fitted_on),
        "floors": study.floors,
        "rows": study.rows,
        "comparisons": [asdict(one) for one in study.comparisons],
        "constants": constants,
        "notes": study.notes(),
    }


def _write(out: Path, data: dict[str, Any]) -> None:
    from moesim.files import write_files
    from moesim.report.balance_page import render_balance

    columns = list(dict.fromkeys(name for row in data["rows"] for name in row))
    lines = [",".join(columns)]
    for row in data["rows"]:
        cells = ("" if row.get(name) is None else str(row[name]) for name in columns)
        lines.append(",".join(f'"{cell}"' if "," in cell else cell for cell in cells))
    files = {
        "balance.csv": "\n".join([*lines, ""]).encode(),
        "balance.json": json.dumps(data, indent=1).encode(),
        "report.html": render_balance(data).encode(),
    }
    write_files(out, files)


def _show(data: dict[str, Any]) -> None:
    from moesim.cli.show import console, table

    terminal = console()
    columns = [name for name in _SHOWN if any(row.get(name) for row in data["rows"])]
    shown = []
    for name in dict.fromkeys(row["method"] for row in data["rows"]):
        own = [row for row in data["rows"] if row["method"] == name]
        picked = sorted({round(i * (len(own) - 1) / (_ROWS - 1)) for i in range(_ROWS)}) if len(own) > 1 else [0]
        shown += [(name, own[i]["step"], *(_number(own[i].get(c), c) for c in columns)) for i in picked]
    terminal.print(table(data["title"], ("method", "step", *(_SHOWN[name] for name in columns)), shown))
    floors = data["floors"]
    typer.echo(
        f"\nmax/mean of an evaluation of even experts: {floors['sequences']:.2f} (tokens of a sequence go together); "
        f"of a uniform router {floors['uniform_router']:.2f}"
    )
    if data["comparisons"]:
        rows = []
        for one in data["comparisons"]:
            rows += [(one["name"], *_compared(one["simulated"], one["factors"], "simulated"))]
            rows += [("", "recorded", *(f"{value:.2f}" for value in one["recorded"]), "", "")]
            if one["null"]:
                rows += [("", f"as {one['null'][0]} was", *[""] * len(one["steps"]), *_errors(one["null"][1]))]
        longest = max(data["comparisons"], key=lambda one: len(one["steps"]))["steps"]
        same = [row for row in rows if len(row) == len(longest) + 4]
        heads = ("run", "max/mean at step", *map(str, longest), "median factor", "worst")
        typer.echo()
        terminal.print(table("", heads, same))
    for note in data["notes"]:
        typer.echo(note)


def _compared(values: list[float], factors: list[float], name: str) -> tuple[str, ...]:
    return (name, *(f"{value:.2f}" for value in values), *_errors(factors))


def _errors(factors: Any) -> tuple[str, str]:
    from statistics import median

    return f"{median(factors):.2f}", f"{max(factors):.2f}"


def _number(value: Any, name: str) -> Any:
    return "-" if value is None else value * _SCALE.get(name, 1.0)


def _bias_alone(scenario: "Scenario", steps: int, from_zero: bool, as_json: bool) -> None:
    from moesim.cli.show import console, table
    from moesim.run.bias_study import bias_dynamics

    rows = bias_dynamics(scenario, steps, from_zero)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    shown = rows[:: max(1, len(rows) // 20)]
    shown = shown if shown[-1] is rows[-1] else [*shown, rows[-1]]
    start = "zero" if from_zero else "the recorded one"
    console().print(
        table(f"bias by itself, from {start}; logits fixed", tuple(rows[0]), [tuple(row.values()) for row in shown])
    )
