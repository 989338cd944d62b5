"""``moesim validate --steps``: published steps of inference and training against simulated ones."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from moesim.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from moesim.validate.published_steps import Step
    from moesim.validate.step_rows import Outcome


def validate_steps(file: Path | None, as_json: bool, jobs: int) -> None:
    """Simulate every published step that kernels can price, and print errors raw and after one fitted row."""
    from moesim.validate.published_steps import STEPS, read_steps
    from moesim.validate.step_rows import evaluate_steps

    steps = read_steps(file or STEPS)
    with progress_bar(quiet=as_json) as watch:
        outcomes = evaluate_steps(steps, jobs, partial(watch, "rows"))
    if as_json:
        typer.echo(json.dumps([outcome.as_dict() for outcome in outcomes], indent=1))
        return
    _show([outcome for outcome in outcomes if not outcome.step.training])
    _show_training([outcome for outcome in outcomes if outcome.step.training and outcome.simulated is not None])
    _show_assumptions(outcomes)
    _show_named(outcomes)
    _show_trace(steps)
    _show_refused(steps)


def _percent(error: float | None) -> str:
    return "" if error is None else f"{100 * error:+.1f} %"


def _show(outcomes: "list[Outcome]") -> None:
    from moesim.cli.show import console, table
    from moesim.validate.step_rows import BAR, NAMED_BEYOND, judged, spread

    simulated = [one for one in outcomes if one.simulated is not None]
    lines = [
        (
            one.step.name, one.step.row["model"], one.step.row["gpu"], one.step.row["kind"], one.step.row["ep"],
            f"{one.step.measured:,.0f}", f"{one.simulated:,.0f}", f"{one.low:,.0f} to {one.high:,.0f}",
            _percent(one.error), "itself" if one.fitted_on == one.step.name else _percent(one.fitted_error),
            one.step.row["unit"],
        )
        for one in simulated
    ]  # fmt: skip
    heads = (
        "row",
        "model",
        "GPU",
        "phase",
        "EP",
        "published",
        "simulated",
        "80 %",
        "error",
        "fitted on a row",
        "unit",
    )
    typer.echo("Published steps, tokens per second; above 0 is too fast")
    console().print(table("", heads, lines))
    found = spread(outcomes)
    if found is not None:
        typer.echo(
            f"inside one source after one fitted row, batch, context and overlap stated: {found.rows} rows, median "
            f"{100 * found.median:.1f} %, 90th percentile {100 * found.p90:.1f} %; "
            f"bar {100 * BAR[0]:.0f} / {100 * BAR[1]:.0f} % {'met' if found.within(BAR) else 'missed'}"
        )
    for one in judged(outcomes):
        if abs(one.fitted_error or 0.0) > NAMED_BEYOND:
            said = "; ".join(one.step.assumptions) or "its source states everything that is asked"
            typer.echo(f"beyond {100 * NAMED_BEYOND:.0f} %: {one.step.name} {_percent(one.fitted_error)}: {said}")


def _show_training(simulated: "list[Outcome]") -> None:
    """Time of a step where the source gives it, else tokens; each in the row's own unit."""
    from moesim.cli.show import console, table

    if not simulated:
        return
    lines = [
        (
            one.step.name, one.step.row["model"], one.step.row["gpu"], one.step.row["gpus"],
            str(one.step.settings["schedule.pipeline"]), f"{one.step.measured:,.6g}", f"{one.simulated:,.6g}",
            f"{one.low:,.5g} to {one.high:,.5g}", _percent(one.error),
            "itself" if one.fitted_on == one.step.name else _percent(one.fitted_error), one.step.row["unit"],
            "" if one.mfu is None else f"{one.mfu:.1%}", one.step.row.get("mfu", "") and f"{one.step.row['mfu']}%",
        )
        for one in simulated
    ]  # fmt: skip
    heads = ("row", "model", "GPU", "GPUs", "pipeline", "published", "simulated", "80 %", "error", "fitted on a row",
             "unit", "MFU", "published")  # fmt: skip
    typer.echo("\nPublished training steps; a time (s of a step, GPU h of 1e12 tokens) below 0 is too fast")
    console().print(table("", heads, lines))


def _show_assumptions(outcomes: "list[Outcome]") -> None:
    typer.echo("\nWhat the sources do not state, and what was taken")
    for one in outcomes:
        if one.simulated is not None and one.step.assumptions:
            typer.echo(f"  {one.step.name}: {'; '.join(one.step.assumptions)}")


def _show_named(outcomes: "list[Outcome]") -> None:
    """The rows that no constant was fitted on or for: each constant at both ends of its range."""
    from moesim.validate.published_steps import TIMES
    from moesim.validate.step_ends import constants_at_ends

    for one in outcomes:
        if one.error is None or one.fitted_on or not one.step.named:
            continue
        typer.echo(f"\n{one.step.name} at the frozen constants {_percent(one.error)}; with one at an end of its range:")
        for ends in constants_at_ends(one.step):
            # Ends are of throughput: a time moves the other way.
            power = -1 if one.step.row["unit"] in TIMES else 1
            low, high = (_percent((1 + one.error) * end**power - 1) for end in (ends.low, ends.high))
            typer.echo(f"  {ends.constant}: {low} to {high}")


def _show_trace(steps: "list[Step]") -> None:
    from moesim.validate.step_trace import decode_trace
    from moesim.validate.training_trace import training_trace

    found = decode_trace(steps)
    if found is not None:
        published, simulated = found
        typer.echo(
            f"\n61 layers of a published decode trace from its own kernels: {simulated:.1f} ms, published "
            f"{published:.1f} ({_percent(simulated / published - 1)})"
        )
    if compared := training_trace(steps):
        typer.echo("\nA published training trace, and the same layers with loads dealt evenly:")
    for one in compared:
        how = (
            f"{one.simulated - one.published:+.1f} points"
            if one.unit == "%"
            else _percent(one.simulated / one.published - 1)
        )
        typer.echo(f"  {one.metric}: {one.simulated:,.1f} {one.unit}, published {one.published:,.1f} ({how})")


def _show_refused(steps: "list[Step]") -> None:
    reasons: dict[str, list[str]] = {}
    for step in steps:
        if step.refused:
            reasons.setdefault(step.refused, []).append(step.row["id"])
    typer.echo(f"\n{sum(map(len, reasons.values()))} of {len({s.row['id'] for s in steps})} rows are not simulated")
    for reason, ids in reasons.items():
        typer.echo(f"  {reason}: {', '.join(ids)}")
