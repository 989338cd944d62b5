"""``moesim routing check``: a gate for CI on how even recorded routing is; no network is simulated."""

import json
from pathlib import Path
from typing import Any

import typer


def check(
    source: Path = typer.Argument(..., help="Recorded routing, in any form that `routing import` reads."),
    against: Path = typer.Option(..., "--against", help="The baseline, likewise."),
    fail_over: list[str] = typer.Option(
        [], "--fail-over", help="NAME=5%: exit 4 when that figure is worse by more, and outside the noise; repeatable."
    ),
    ranks: int = typer.Option(8, "--ranks", min=1, help="Ranks that the experts are spread over, contiguously."),
    ranks_per_node: int = typer.Option(8, "--ranks-per-node", min=1, help="Ranks of a node."),
    top_k: int | None = typer.Option(None, "--top-k", help="Experts of a token, where a file does not say it."),
    experts: int | None = typer.Option(None, "--experts", help="Routed experts of a layer, likewise."),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Compare how even recorded routing is with a baseline, in moesim's and the engines' own figures.

    Example: moesim routing check expert_counts.csv --against expert_counts.csv --fail-over rank_load_max_over_mean=5%
    """
    from moesim.cli.show import console, table
    from moesim.dumps import read_routing
    from moesim.dumps.balance_check import DRAWS, MEANINGS, check_balance

    limits = _limits(fail_over, tuple(MEANINGS))
    now, before = (read_routing(path, top_k=top_k, n_experts=experts) for path in (source, against))
    rows = check_balance(now, before, ranks, ranks_per_node)
    known = {row.name for row in rows}
    for name in limits:
        if name not in known:
            _refuse(f"{name} needs expert ids, and these are counts", "--fail-over")
    failed = [row.name for row in rows if row.name in limits and row.fails(limits[row.name])]
    if as_json:
        shown: list[dict[str, Any]] = [
            vars(row) | {"limit": limits.get(row.name), "failed": row.name in failed} for row in rows
        ]
        typer.echo(json.dumps({"figures": shown, "failed": failed, "draws": DRAWS, "ranks": ranks}, indent=1))
    else:
        cells = [
            (row.name, row.value, row.baseline, f"{row.worse:+.1%}", "-" if row.noise is None else f"{row.noise:.1%}",
             "" if row.name not in limits else "worse" if row.name in failed else "ok")
            for row in rows
        ]  # fmt: skip
        console().print(table("", ("figure", "value", "baseline", "worse by", "noise", "gate"), cells))
        if any(row.noise is None for row in rows):
            typer.echo("noise: too few sequences, blocks or steps in a recording to say")
    if failed:
        typer.echo(f"worse than {against}: {', '.join(failed)}", err=True)
        raise typer.Exit(4)


def _limits(fail_over: list[str], names: tuple[str, ...]) -> dict[str, float]:
    from moesim.cli.compare import percentage
    from moesim.mistakes import did_you_mean

    limits = {}
    for text in fail_over:
        name, equals, share = text.partition("=")
        if not equals:
            _refuse(f"{text!r:.60} is no NAME=5%", "--fail-over", f"such as {names[1]}=5%")
        if name not in names:
            _refuse(f"no figure {name!r:.60}", "--fail-over", did_you_mean(name, names))
        limits[name] = percentage(share) / 100
    return limits


def _refuse(what: str, where: str, fix: str = "") -> None:
    from moesim.errors import InputError

    raise InputError(what, where, fix)
