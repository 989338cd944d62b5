"""The report that sets several runs side by side: which is best, why, and at what price."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import quote

from moesim.errors import InputError
from moesim.report.charts import Chart, DotChart, SmallMultiples, StackedBars
from moesim.report.comparison import (
    OF_CRITICAL_RANK,
    Bands,
    apart,
    compare,
    critical_words,
    direction,
    is_timed,
    subjects_of,
)
from moesim.report.comparison_charts import (
    Runs,
    changed_keys,
    comparison_charts,
    noise_chart,
    noise_sentence,
    numbers_table,
    same_in_all,
    training_overlays,
)
from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.named_numbers import WORDS
from moesim.report.page import render, view_of
from moesim.report.quantities import quantity, unit_of
from moesim.report.run_page import Verdict, chips
from moesim.report.static import figure_files
from moesim.results import DEFINITIONS, Result


class Row(NamedTuple):
    """What the table of runs has of a run beside its cells: where it is, the classes of each cell, whether what-if."""

    name: str
    link: str
    marks: list[str]
    what_if: bool


def render_comparison(
    runs: Runs, title: str, baseline: str | None = None, bands: tuple[Bands, Bands] | None = None
) -> str:
    """Write the page that compares runs.

    Args:
        runs: ``(name, result)``; the page links to ``<name>/report.html``.
        title: of the page.
        baseline: name of the run that the others are measured against; default the first.
        bands: of two runs over seeds, in their order; the page then separates differences from noise.

    Returns:
        The page: no other file or network needed, the same bytes for the same results.

    Raises:
        InputError: no runs, two of the same name, or no run of the baseline's name.
    """
    names = [name for name, _ in runs]
    base_name = baseline if baseline is not None else (names[0] if names else "")
    if base_name not in names or len(set(names)) != len(names):
        raise InputError(f"{base_name!r} is not one of the runs, or two runs have one name: {', '.join(names)}")
    base = dict(runs)[base_name]
    charts, alike = comparison_charts(runs), _alike(runs)
    if alike:  # what all have in common marks none
        charts = {key: replace(chart, flagged=()) if isinstance(chart, StackedBars | SmallMultiples) else chart
                  for key, chart in charts.items()}  # fmt: skip
    same = [chart for chart in charts.values() if same_in_all(chart)]
    field, training = judged_runs(runs), training_overlays(runs)
    known = [key for key in WORDS if any(run.summary.get(key) is not None for _, run in runs)]
    times = [(run.summary["step_time_s"], run.summary["layer_time_s"]) for _, run in runs]
    if all(step is not None and math.isclose(step, layer, rel_tol=1e-9) for step, layer in times):  # no whole steps
        known.remove("step_time_s")
    shared = _same_numbers(runs, known)
    table, rows = _variants(runs, base, field, [key for key in known if key not in shared])
    noisy = None if bands is None else compare(runs[0][1], runs[1][1], names, bands)
    return render(
        "comparison.html.j2",
        title=title,
        chips=_common_chips(runs),
        verdict=Verdict(noise_sentence(noisy), "") if noisy else comparison_verdict(runs),
        noise=view_of(noise_chart(noisy, WORDS)) if noisy else None,
        numbers=numbers_table(noisy) if noisy else None,
        table=table,
        rows=rows,
        baseline=base_name,
        what_if="" if alike else _what_if(runs, field),
        alike=alike,
        all_judged=len(field) == len(runs),
        charts={key: view_of(chart) for key, chart in charts.items() if chart not in same},
        same=_same_in_words(runs, same),
        shared=DataTable(
            ("runs", *(WORDS[key] for key in shared)),
            [(f"all {len(runs)}", *(_cell(runs[0][1], key) for key in shared))] if shared else [],
            hints=("", *(DEFINITIONS[key].text for key in shared)),
        ),
        training=[view_of(chart) for chart in training],
        one_training=len(runs) > 1 and all(len(chart.series) == 1 for chart in training),
        changes=_changes(runs, base_name, base),
        notes=_common_notes(runs),
    )


def comparison_figures(runs: Runs) -> dict[str, bytes]:
    """Draw every chart of the comparing page as files: ``figures/<chart>.svg`` and ``.png``."""
    charts = [chart for chart in comparison_charts(runs).values() if chart is not None]
    return figure_files([*charts, *training_overlays(runs)])


def judged_runs(runs: Runs) -> Runs:
    """The runs that the verdict and the bold figures are about: without what-if ones where two others are there."""
    trained = [(name, run) for name, run in runs if not run.summary["counterfactual"]]
    return trained if len(trained) > 1 else runs


def _reasons(run: Result) -> tuple[str, ...]:
    """In which ways a run's router is not the one of its logits."""
    found = tuple(note.text for note in run.notes if note.kind == "counterfactual")
    return found or (("not the router that the logits were trained with",) if run.summary["counterfactual"] else ())


def _alike(runs: Runs) -> str:
    """Say what is counterfactual in all of several runs alike, and so tells none from another; empty for nothing."""
    if len(runs) < 2 or not _reasons(runs[0][1]) or len({_reasons(run) for _, run in runs}) > 1:
        return ""
    return (
        f"In all runs alike the router is not the one of the logits: {'; '.join(_reasons(runs[0][1]))}. Where tokens "
        "go (loads, copies, bytes, gate mass, losses) is a what-if, and so is the level of the times; what differs "
        "between the runs does not come from it."
    )


def _what_if(runs: Runs, field: Runs) -> str:
    """Say of which runs and numbers the router makes a what-if, and what part these take; empty where of none."""
    number = sum(bool(run.summary["counterfactual"]) for _, run in runs)
    if not number:
        return ""
    own = "no run has" if number == len(runs) else "only one run has"
    part = (
        "They take no part in the verdict or the bold figures."
        if len(field) < len(runs)
        else f"The verdict and the bold figures include them, since {own} the router of its logits."
    )
    return (
        f"{number} of {len(runs)} runs are counterfactual (marked what-if): a router on logits that were trained "
        "with another one. What-if is where their tokens go (loads, copies, bytes, gate mass, losses) and what follows "
        f"from it for their times, not what wires and kernels reach. {part}"
    )


def _same_numbers(runs: Runs, keys: Sequence[str]) -> list[str]:
    """Those of some numbers that are the same in all of several runs."""
    if len(runs) < 2:
        return []
    return [key for key in keys if len({_cell(run, key).words() for _, run in runs}) == 1 and key != "layer_time_s"]


def _cell(run: Result, key: str) -> Quantity:
    return Quantity(run.summary.get(key), unit_of(key), *run.intervals.get(key, ()))


def _same_in_words(runs: Runs, charts: Sequence[Chart | None]) -> str:
    """One line for charts that would show the same of every run."""
    words = []
    for chart in charts:
        if isinstance(chart, DotChart):
            title = chart.title.lower()
            head = chart.x_label if title in chart.x_label else f"{title}, {chart.x_label}"
            numbers = (f"{group} {quantity(v[0], '')}".removeprefix(f"{title} ") for group, v in chart.groups.items())
            words.append(f"{head}: {', '.join(numbers)}")
        elif chart is not None:
            words.append(chart.title.lower())
    return f"Same in all {len(runs)} runs: {'; '.join(words)}." if words else ""


def comparison_verdict(runs: Runs) -> Verdict:
    """State which run is fastest and by how much; what-if runs only where fewer than two others are there."""
    field = judged_runs(runs)
    noun = "runs"
    if len({repr(run.explanation["router"]) for _, run in field}) > 1:
        own = not any(run.summary["counterfactual"] for _, run in field)
        noun = "routers on their own training" if own else "runs, what-if ones included"
    ordered = sorted(field, key=lambda one: (float(one[1].summary["layer_time_s"]), one[0]))
    (best_name, best), (worst_name, worst) = ordered[0], ordered[-1]
    fast, slow = float(best.summary["layer_time_s"]), float(worst.summary["layer_time_s"])
    if len(ordered) == 1 or slow == 0:
        return Verdict(f"{best_name}: {quantity(fast, 's')} per layer.", f"Bottleneck: {_bottleneck(best)}.")
    if slow <= fast * (1 + 1e-9):
        return Verdict(f"No difference: {quantity(fast, 's')} per layer for each of {len(ordered)}.", "")
    text = (
        f"{quantity(fast, 's')} per layer, {quantity(1 - fast / slow, '%')} less than {worst_name} "
        f"({quantity(slow, 's')}). "
    )
    if _ratio(best) != _ratio(worst):
        text += (
            f"Its most loaded rank computes {_ratio(best)} times the mean, that of {worst_name} {_ratio(worst)} times. "
        )
    other = "" if _bottleneck(best) == _bottleneck(worst) else f"; for {worst_name}: {_bottleneck(worst)}"
    text += f"Bottleneck: {_bottleneck(best)}{other}."
    same = [name for name, run in ordered[1:] if not apart(best, run, "layer_time_s")]
    if same:
        text += f" Within the model's error of it: {', '.join(same)}."
    return Verdict(f"{best_name} is the fastest of {len(ordered)} {noun}:", text)


def _bottleneck(run: Result) -> str:
    return str(run.summary["bottleneck"]).replace(": ", ", ", 1)


def _ratio(run: Result) -> str:
    return quantity(run.summary["rank_load_max_over_mean"], "")


def _variants(runs: Runs, base: Result, field: Runs, keys: Sequence[str]) -> tuple[DataTable, list[Row]]:
    """The table of the runs."""
    best, judged = _best([run for _, run in field]), {name for name, _ in field}
    marked = not _alike(runs)
    base_time = float(base.summary["layer_time_s"])
    lines: list[tuple[Cell, ...]] = []
    rows = []
    for name, run in runs:
        summary = run.summary
        reasons = _reasons(run) if marked else ()
        change = float(summary["layer_time_s"]) / base_time - 1 if base_time else 0.0
        fastest = "layer_time_s" not in best or summary["layer_time_s"] == best["layer_time_s"]
        marks = [
            "best"
            if key in best and name in judged and summary.get(key) == best[key] and (fastest or not is_timed(key))
            else ""
            for key in keys
        ]
        delta = f"{100 * change:+.1f} %".replace("-", "−")
        unsure = base_time > 0 and run is not base and not apart(base, run, "layer_time_s")
        delta += ", within the model's error" if unsure else ""
        verdict = "" if unsure or abs(change) < 5e-4 else "better" if change < 0 else "worse"
        lines.append((
            name,
            None if run is base else Quantity(change, "%", text=delta),
            critical_words(subjects_of(run).critical_ranks),
            *(_cell(run, key) for key in keys),
            "; ".join(reasons),
        ))  # fmt: skip
        rows.append(
            Row(name, f"./{quote(name, safe='')}/report.html", [f"delta {verdict}", "", *marks, "why"], bool(reasons))
        )
    columns = ("variant", "change", "critical rank", *(WORDS[key] for key in keys), "why counterfactual")
    critical = "the last rank to end, of each layer; of many layers the most frequent"
    hints = ("", "", critical, *(DEFINITIONS[key].text for key in keys), "")
    return DataTable(columns, lines, hints=hints), rows


def _best(trained: list[Result]) -> dict[str, float]:
    """The best value of every column in which the runs differ; none of numbers that tell of different ranks."""
    one_rank = len({subjects_of(run).critical_ranks for run in trained}) <= 1
    best: dict[str, float] = {}
    for key in WORDS:
        known = [float(value) for run in trained if (value := run.summary.get(key)) is not None]
        judged = direction(key) and (one_rank or key not in OF_CRITICAL_RANK)
        if judged and len(known) > 1 and min(known) < max(known):
            best[key] = min(known) if direction(key) < 0 else max(known)
    return best


def _common_chips(runs: Runs) -> list[str]:
    """What all runs share, in the words of a single run's page."""
    each = [chips(run) for _, run in runs]
    return [chip for chip in each[0] if all(chip in other for other in each)] + [f"{len(runs)} runs"]


def _common_notes(runs: Runs) -> list[tuple[str, str, str]]:
    """Notes other than counterfactual ones, each once: ``(kind, text, whose)``."""
    owners: dict[tuple[str, str], list[str]] = {}
    for name, run in runs:
        for note in run.notes:
            if note.kind != "counterfactual":
                owners.setdefault((note.kind, note.text), []).append(name)
    return [(kind, text, "" if len(names) == len(runs) else ", ".join(names)) for (kind, text), names in owners.items()]


def _changes(runs: Sequence[tuple[str, Result]], base_name: str, base: Result) -> DataTable:
    rows: list[tuple[Cell, ...]] = []
    for name, run in runs:
        if name != base_name:
            rows += [(name, *change) for change in changed_keys(base.scenario_yaml, run.scenario_yaml)]
    return DataTable(("variant", "key", f"in {base_name}", "here"), rows)
