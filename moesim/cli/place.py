"""``moesim place``: does another placement of the experts pay, from when on, for how long, at what price."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from moesim.cli.memory_limit import HELP as MAX_MEM

if TYPE_CHECKING:
    from moesim.results import PlacementVerdict


def place(
    scenario: str = typer.Argument(..., help="A scenario file, or the name of one that ships."),
    override: list[str] = typer.Option([], "-o", "--override", help="key=value."),
    redundant: list[int] = typer.Option(
        [], "--redundant", min=0, max=100_000, help="Redundant experts to try; default: none and a slot on each rank."
    ),
    write: Literal["sglang", "tensorrt-llm", "json"] | None = typer.Option(
        None, "--write", help="Write the placement that the scenario itself asks for, in this form, to --out."
    ),
    out: Path | None = typer.Option(None, "--out", help="The page to write; with --write the map."),
    max_mem: str | None = typer.Option(None, "--max-mem", help=MAX_MEM),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Say whether another placement of the experts pays: learnt on some tokens, judged on others, moving included.

    Each selection goes to the replica that placement.replica_choice takes, as in a run.

    Example: moesim place quickstart --redundant 0 --redundant 8 --out place.html
    """
    from moesim.cli.memory_need import refuse_too_large
    from moesim.errors import InputError
    from moesim.files import PAGE, check_replaceable, write_files
    from moesim.placement import map_kind, write_map
    from moesim.run.placement_study import map_of
    from moesim.run.placement_verdict import place_verdict
    from moesim.scenario import load_scenario

    if write is not None and out is None:
        raise InputError("--write without --out", fix="--write sglang --out map.json")
    loaded = load_scenario(scenario, overrides=override)
    refuse_too_large(loaded, max_mem)
    check_replaceable(out, PAGE if write is None else map_kind(write))
    if write is not None and out is not None:
        write_map(out, map_of(loaded), form=write, model_layers=loaded.model.layers if write == "sglang" else None)
        typer.echo(f"written: {out}", err=as_json)
    say = (lambda _: None) if quiet else (lambda line: typer.echo(line, err=True))
    verdict = place_verdict(loaded, redundant, say)
    if as_json:
        typer.echo(json.dumps(verdict.to_json(), indent=1, allow_nan=False))
    else:
        _print(verdict)
    if out is not None and write is None:
        from moesim.report import render_placement

        write_files(out.parent, {out.name: render_placement(verdict).encode()})
        typer.echo(f"report: {out}", err=as_json)


def _print(verdict: "PlacementVerdict") -> None:
    from moesim.cli.show import console, table
    from moesim.results import percent, whole
    from moesim.units import format_bytes, format_duration

    def steps(one: float | None) -> str:
        return "never" if one is None else whole(one)

    shown = console()
    shown.print(verdict.sentence(), soft_wrap=True)
    shown.print(f"learnt from {verdict.learnt_from}; judged on {verdict.judged_on}", soft_wrap=True)
    loads = {"rank": "rank", "rank_itself": "on itself", "rank_learnt": "where learnt", "node": "node"}
    rows = []
    for i, one in enumerate(verdict.options):
        low, high = (percent(end or 0.0) for end in (one.saved.low, one.saved.high))
        saved = f"{percent(one.saved.value)} ({low} to {high})" if i else "-"
        blocking = "blocking" in one.migration_s
        rows.append(
            (
                one.name,
                format_duration(one.layer_time_s),
                saved,
                *(one.loads.get(key) for key in loads),
                f"{one.moves:.0f}" if i else "-",
                steps(one.break_even_steps.get("blocking")) if blocking else "-",
                steps(one.break_even_drifting_steps) if blocking else "-",
                format_bytes(one.hbm_bytes_per_rank) if one.hbm_bytes else "-",
            )
        )
    columns = ("placement", "layer", "saved", *loads.values(), "moves", "pays after", "drifting", "memory")
    shown.print(table("loads are max / mean; pays after so many steps", columns, rows))
    shown.print(f"ageing: {verdict.ageing.said}", soft_wrap=True)
    for note in verdict.notes:
        shown.print(note, soft_wrap=True)
