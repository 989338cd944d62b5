"""``moesim explain``, ``trace``, ``topo``, ``schema``: looking at results, topologies and the schema."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from moesim.cli.topo_files import topo_export, topo_import

if TYPE_CHECKING:
    from moesim.results import Result


topo = typer.Typer(name="topo", help="Topologies: list, show, import and export them.", no_args_is_help=True)


def explain(
    run: Path = typer.Argument(..., help="Result folder."),
    key: str | None = typer.Argument(None, help="A number of its summary, such as dispatch_time_s; without: all."),
) -> None:
    """Take one number of a result apart: definition, bytes, capacities, constants, sources. Without one, list all.

    Example: moesim explain results/latest dispatch_time_s
    """
    from moesim.results import load_result, made_of

    result = load_result(run, at_once=False)
    with made_of(run):
        for line in _explained(result, key):
            typer.echo(line)


def _explained(result: "Result", key: str | None) -> Iterator[str]:
    from moesim.results.explain import explain_lines

    if key is None:
        from moesim.cli.show import console, in_words, table
        from moesim.results import DEFINITIONS

        known = [name for name in result.summary if name in DEFINITIONS]
        rows = [(name, in_words(result, name), DEFINITIONS[name].text) for name in known]
        console().print(table("", ("number", "value", "meaning"), rows, words=True))
        return
    yield from explain_lines(result, key)
    phase = key.split("_")[0]
    if phase in ("dispatch", "combine"):
        from moesim.validate.nearest import nearest_of

        near = nearest_of(result, phase)
        if near is not None:
            yield f"  nearest published: {near.line()}"


def trace(
    run: Path = typer.Argument(..., help="Result folder."),
    out: Path | None = typer.Option(None, "--out", help="Where to put the unpacked JSON."),
) -> None:
    """Print the path of the run's trace file, for https://ui.perfetto.dev or chrome://tracing, or unpack it.

    Example: moesim trace results/latest --out trace.json
    """
    from moesim.errors import InputError
    from moesim.files import check_replaceable, marked, write_files
    from moesim.results import unpacked_trace

    path = run / "trace.json.gz"
    if not path.is_file():
        raise InputError("no trace.json.gz", where=str(run), fix="give the --out of a run")
    if out is None:
        typer.echo(str(path))
        return
    check_replaceable(out, "timeline")
    write_files(out.parent, {out.name: marked("timeline", unpacked_trace(path))})
    typer.echo(str(out))


def schema() -> None:
    """Print the JSON Schema of a scenario, for editors.

    Example: moesim schema > scenario.schema.json
    """
    from moesim.scenario import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))


@topo.command("show")
def topo_show(
    topology: str = typer.Argument(..., help="Name or path of a topology."),
    draw_to: Path | None = typer.Option(None, "--draw", help="Picture to write: .svg or .png."),
    as_json: bool = typer.Option(False, "--json", help="Print the facts as JSON."),
) -> None:
    """Print a topology's links, capacities and latencies; draw it.

    Example: moesim topo show h800-8x8-rail --draw rail.svg
    """
    from moesim.cluster import beyond_today, describe, draw, facts, find_topology, load_topology, read_topology
    from moesim.files import PICTURE, check_replaceable

    check_replaceable(draw_to, PICTURE)
    fabric = load_topology(topology)
    for question in beyond_today(fabric):
        typer.echo(question, err=True)
    typer.echo(json.dumps(facts(fabric), indent=1) if as_json else describe(fabric))
    if draw_to is not None:
        typer.echo(str(draw(read_topology(find_topology(topology)), draw_to, title=fabric.name)))


@topo.command("list")
def topo_list() -> None:
    """List the topologies that ship.

    Example: moesim topo list
    """
    from moesim.cluster import topology_names

    for name in topology_names():
        typer.echo(name)


topo.command("import")(topo_import)
topo.command("export")(topo_export)
