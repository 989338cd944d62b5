"""``moesim run`` and ``report``: scenarios in, result folders and pages out."""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from moesim.cli.folder_wait import WAIT
from moesim.cli.memory_limit import HELP as MAX_MEM
from moesim.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from moesim.report import ThresholdOutcome
    from moesim.results import Result
    from moesim.scenario import Scenario, Threshold

    Missed = tuple[str, ThresholdOutcome]

# Each kind of constants is simulated faster and slower.
_CLOCKS_OF_EXACT_BANDS = 12


def run(
    scenario: str | None = typer.Argument(None, help="A scenario file, or the name of one that ships (quickstart)."),
    topology: str | None = typer.Option(None, "--topology", help="Instead of a scenario: the cluster, name or file."),
    model: str | None = typer.Option(
        None, "--model", help="With --topology: name or Hugging Face config.json; default deepseek-v3."
    ),
    load: Path | None = typer.Option(
        None, "--load", help="With --topology: recorded routing of any form, or counts per expert (layer,expert,count)."
    ),
    tokens_per_rank: int | None = typer.Option(
        None, "--tokens-per-rank", help="With --topology: tokens per rank; default 4096."
    ),
    ep: int | None = typer.Option(None, "--ep", help="With --topology: ranks; default all GPUs."),
    override: list[str] = typer.Option([], "-o", "--override", help="key=value, as in -o routing.top_k=6."),
    seed: int | None = typer.Option(None, "--seed", help="Seed, instead of the scenario's."),
    out: Path | None = typer.Option(None, "--out", help="Result folder; default results/NAME-TIME-DIGEST."),
    wait: bool = WAIT,
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    jobs: int = typer.Option(0, "--jobs", min=0, help="Processes for variants; 0 = one per core."),
    figures: bool = typer.Option(False, "--figures", help="Write every chart as SVG and PNG too."),
    page: bool = typer.Option(True, " /--no-report", help="Leave the page out."),
    band: str = typer.Option(
        "auto", "--band", help="Intervals of times: auto, or exact, from the first step simulated again."
    ),
    quick: bool = typer.Option(False, "--quick", help="A first answer without the event engine; nothing is written."),
    max_mem: str | None = typer.Option(None, "--max-mem", help=MAX_MEM),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Simulate a scenario and write its result folder with the report.

    Example: moesim run quickstart -o routing.top_groups=2 --out results/quick

    Without a scenario: moesim run --topology h800-8x8-rail --model config.json --load counts.csv
    """
    from moesim.cli.first_run import make_ready
    from moesim.cli.memory_need import refuse_too_large
    from moesim.cli.variants import simulate_all
    from moesim.cli.without_file import Facts, scenario_or_facts
    from moesim.errors import InputError
    from moesim.files import telling
    from moesim.output_folder import folder_in_one_piece
    from moesim.scenario import load_scenario

    if band not in ("auto", "exact"):
        raise InputError(f"{band!r} is no way to find an interval", where="--band", fix="use auto or exact")
    overrides = [*override, *([f"seed={seed}"] if seed is not None else [])]
    source = scenario_or_facts(scenario, Facts(topology, model, load, tokens_per_rank, ep))
    loaded = load_scenario(source, overrides=overrides)
    if quick:
        _run_quickly(loaded, as_json)
        return
    processes = min(jobs or os.cpu_count() or 1, len(loaded.variants or ()) or 1)
    refuse_too_large(loaded, max_mem, processes)
    make_ready(loaded, again=_CLOCKS_OF_EXACT_BANDS if band == "exact" else 0)
    runs = loaded.variant_scenarios() or {}
    target = out or _default_folder(loaded)
    say = (lambda _: None) if quiet else (lambda line: typer.echo(line, err=True))
    with folder_in_one_piece(target) as staging:
        if runs:
            results = simulate_all(runs, jobs or os.cpu_count() or 1, say, band == "exact")
        else:
            from moesim.run import simulate

            with progress_bar(quiet, after_s=2.0) as watch:
                results = {loaded.name: simulate(loaded, progress=say, exact_bands=band == "exact", watch=watch)}
        if as_json:
            summaries = {
                name: result.summary | {"intervals": dict(result.intervals)} for name, result in results.items()
            }
            value = summaries if runs else summaries[loaded.name]
            typer.echo(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))
        else:
            from moesim.cli.show import print_run, print_variants

            if runs:
                print_variants(loaded.name, results)
            else:
                print_run(results[loaded.name])
        sys.stdout.flush()  # the numbers are read while the page is made
        with telling(target):
            if runs:
                missed = _write_variants(loaded, results, runs, staging, figures, page)
            else:
                missed = _write_run(loaded, results[loaded.name], staging, figures, page)
    if out is None:
        _link_latest(target)
    if not as_json:
        typer.echo(f"report: {target / 'report.html'}" if page else f"results: {target}")
    for name, outcome in missed:
        found = "does not apply" if outcome.value is None else f"is {outcome.value:.6g}"
        typer.echo(f"threshold missed: {name}: {outcome.text} ({found})", err=True)
    if missed:
        raise typer.Exit(4)


def _run_quickly(scenario: "Scenario", as_json: bool) -> None:
    """Print the quick answer, of every variant where there are some."""
    from moesim.cli.first_run import make_ready

    make_ready(scenario, again=-1)
    from moesim.cli.show import print_run, print_variants
    from moesim.run.quick_answer import quick_answer

    runs = scenario.variant_scenarios() or {}
    results = {name: quick_answer(one) for name, one in (runs or {scenario.name: scenario}).items()}
    if as_json:
        values = {
            name: one.summary | {"intervals": dict(one.intervals), "quick": True} for name, one in results.items()
        }
        typer.echo(json.dumps(values if runs else values[scenario.name], indent=1, sort_keys=True, allow_nan=False))
    elif runs:
        print_variants(scenario.name, results)
        typer.echo(next(iter(results.values())).notes[0].text)
    else:
        print_run(results[scenario.name])


def report(
    runs: list[Path] = typer.Argument(..., help="Result folders."),
    baseline: Path | None = typer.Option(None, "--baseline", help="Compare all against this run."),
    out: Path | None = typer.Option(None, "--out", help="The page; default report.html in the run's folder."),
    figures: bool = typer.Option(False, "--figures", help="Write every chart as SVG and PNG beside the page."),
) -> None:
    """Write the report of a run, or one page comparing several.

    Example: moesim report results/a results/b --baseline results/a --out ab.html
    """
    from moesim.errors import InputError
    from moesim.files import PAGE, check_replaceable, write_files
    from moesim.results import load_result, made_of

    folders = [*([baseline] if baseline and baseline not in runs else []), *runs]
    if len(folders) == 1 and baseline:
        raise InputError("a run against itself", "--baseline", "leave it out, or name another")
    page = out or (folders[0] / "report.html" if len(folders) == 1 else Path("comparison.html"))
    check_replaceable(page, PAGE)
    labels = folder_labels(folders)
    loaded = [(label, load_result(folder)) for label, folder in zip(labels, folders, strict=True)]
    with made_of(*folders):
        html, charts = _pages(loaded, labels[folders.index(baseline)] if baseline else None, figures)
    write_files(page.parent, {page.name: html.encode(), **charts})
    typer.echo(str(page))


def _pages(runs: "list[tuple[str, Result]]", baseline: str | None, figures: bool) -> tuple[str, dict[str, bytes]]:
    """The report of one run or of several, and its charts where they are wanted."""
    from moesim.report import comparison_figures, render_comparison, render_run, run_figures

    for _, result in runs:
        _add_nearest_published(result)
    if len(runs) == 1:
        result = runs[0][1]
        html = render_run(result, thresholds=_outcomes(_limits_of(result), result))
        return html, run_figures(result) if figures else {}
    html = render_comparison(runs, " against ".join(label for label, _ in runs), baseline=baseline)
    return html, comparison_figures(runs) if figures else {}


def folder_labels(folders: list[Path]) -> list[str]:
    """Name result folders: their own names, whole paths where two are called the same."""
    names = [Path(os.path.realpath(folder)).name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _default_folder(scenario: "Scenario") -> Path:
    from datetime import UTC, datetime

    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    # A variant's own name has a slash in it; its folder is beside the others all the same.
    return Path("results") / f"{scenario.name.replace('/', '-')}-{stamp}-{scenario.digest()[:8]}"


def _link_latest(target: Path) -> None:
    """Point results/latest at the newest run; a file system without symlinks goes without."""
    link = target.parent / "latest"
    with contextlib.suppress(OSError):
        if link.is_symlink():
            link.unlink()
        if not link.exists():
            link.symlink_to(target.name, target_is_directory=True)


def _outcomes(limits: "Iterable[Threshold]", result: "Result") -> "list[ThresholdOutcome]":
    limits = list(limits)
    if not limits:
        return []  # without the page's libraries
    from moesim.report import ThresholdOutcome

    return [ThresholdOutcome(limit.text, result.summary[limit.key], limit.holds(result.summary)) for limit in limits]


def _limits_of(result: "Result") -> "list[Threshold]":
    from moesim.located_yaml import parse_yaml
    from moesim.scenario import parse_threshold

    document = parse_yaml(result.scenario_yaml, "scenario.resolved.yaml")
    if not isinstance(document.data, dict):
        raise document.error((), "expected a scenario", "run it again")
    return [parse_threshold(text) for text in document.data.get("thresholds") or ()]


def _write_run(scenario: "Scenario", result: "Result", folder: Path, figures: bool, page: bool) -> "list[Missed]":
    _add_nearest_published(result, scenario.model.hidden)
    outcomes = _outcomes(scenario.limits(), result)
    extra: dict[str, bytes] = {}
    if page:
        from moesim.report import render_run

        extra["report.html"] = render_run(result, thresholds=outcomes).encode()
    if figures:
        from moesim.report import run_figures

        extra |= run_figures(result)
    result.write(folder, extra)
    return [(scenario.name, outcome) for outcome in outcomes if not outcome.passed]


def _add_nearest_published(result: "Result", hidden: int | None = None) -> None:
    """Put the nearest published measurement beside the constants of each phase, for the report and ``explain``.

    A run that Python code saved has none yet.
    """
    from moesim.validate.nearest import nearest_of

    for phase, facts in result.explanation["alltoall"].items():
        if "nearest_published" in facts:
            continue
        near = nearest_of(result, phase, hidden)
        facts["nearest_published"] = None if near is None else near.line()


def _write_variants(
    scenario: "Scenario",
    results: "dict[str, Result]",
    runs: "dict[str, Scenario]",
    folder: Path,
    figures: bool,
    page: bool,
) -> "list[Missed]":
    """Write VARIANT/ for every variant, and report.html, which compares them."""
    from moesim.files import write_files
    from moesim.results import SCHEMA_VERSION

    missed: list[Missed] = []
    for name, result in results.items():
        missed += _write_run(runs[name], result, folder / name, figures, page)
    files: dict[str, bytes] = {}
    if page:
        from moesim.report import render_comparison

        files["report.html"] = render_comparison(list(results.items()), scenario.name).encode()
    if figures:
        from moesim.report import comparison_figures

        files |= comparison_figures(list(results.items()))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    about = {"schema": SCHEMA_VERSION, "variants": list(results), "files": digests}
    write_files(folder, {**files, "variants.json": json.dumps(about, indent=1).encode() + b"\n"})
    return missed
