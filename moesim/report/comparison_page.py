"""The report that sets several runs side by side: which is best, why, and at what price."""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from moesim.errors import InputError
from moesim.report.charts import Cell, DataTable
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
from moesim.report.comparison_charts import Runs, comparison_charts, training_overlays
from moesim.report.comparison_noise import noise_chart, noise_sentence, numbers_table
from moesim.report.named_numbers import WORDS
from moesim.report.page import render, view_of
from moesim.report.quantities import named_quantity, quantity
from moesim.report.run_page import Verdict, chips
from moesim.report.scenario_diff import changed_keys
from moesim.report.static import figure_files
from moesim.results import SUMMARY, Result

_SECTIONS = [
    ("first", "Result"),
    ("noise", "Noise"),
    ("variants", "Variants"),
    ("balance", "Balance"),
    ("trade-off", "Bytes and gate mass"),
    ("training", "Training"),
    ("changes", "What differs"),
    ("glossary", "Glossary"),
]


class Row(NamedTuple):
    """One run in the table: its critical rank, cells in the order of the columns, and whether each is the best."""

    name: str
    link: str
    reasons: list[str]
    delta: str
    verdict: str
    critical: str
    cells: list[tuple[str, bool]]


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
    charts = {key: view_of(chart) for key, chart in comparison_charts(runs).items()}
    noisy = None if bands is None else compare(runs[0][1], runs[1][1], names, bands)
    return render(
        "comparison.html.j2",
        title=title,
        sections=[one for one in _SECTIONS if noisy or one[0] != "noise"],
        chips=_common_chips(runs),
        verdict=Verdict(noise_sentence(noisy), "") if noisy else comparison_verdict(runs),
        noise=view_of(noise_chart(noisy, WORDS)) if noisy else None,
        numbers=numbers_table(noisy) if noisy else None,
        columns=[(key, short, SUMMARY[key].text) for key, short in WORDS.items()],
        rows=_rows(runs, base),
        baseline=base_name,
        what_if=sum(bool(run.summary["counterfactual"]) for _, run in runs),
        charts=charts,
        training=[view_of(chart) for chart in training_overlays(runs)],
        changes=_changes(runs, base_name, base),
        notes=_common_notes(runs),
    )


def comparison_figures(runs: Runs) -> dict[str, bytes]:
    """Draw every chart of the comparing page as files: ``figures/<chart>.svg`` and ``.png``."""
    charts = [chart for chart in comparison_charts(runs).values() if chart is not None]
    return figure_files([*charts, *training_overlays(runs)])


def comparison_verdict(runs: Runs) -> Verdict:
    """State which of the trained routers is fastest and by how much; what-if runs only where nothing else is there."""
    trained = [(name, run) for name, run in runs if not run.summary["counterfactual"]]
    field = trained if len(trained) > 1 else list(runs)
    noun = "routers on their own training" if len(trained) == len(field) else "runs, what-if ones included"
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
        f"Its most loaded rank computes {_ratio(best)} times the mean, that of {worst_name} {_ratio(worst)} times. "
        f"Bottleneck: {_bottleneck(best)}; for {worst_name}: {_bottleneck(worst)}."
    )
    same = [name for name, run in ordered[1:] if not apart(best, run, "layer_time_s")]
    if same:
        text += f" Within the model's error of it: {', '.join(same)}."
    return Verdict(f"{best_name} is the fastest of {len(ordered)} {noun}:", text)


def _bottleneck(run: Result) -> str:
    return str(run.summary["bottleneck"]).replace(": ", ", ", 1)


def _ratio(run: Result) -> str:
    return quantity(run.summary["rank_load_max_over_mean"], "")


def _rows(runs: Runs, base: Result) -> list[Row]:
    best = _best([run for _, run in runs if not run.summary["counterfactual"]])
    rows = []
    base_time = float(base.summary["layer_time_s"])
    for name, run in runs:
        summary = run.summary
        reasons = [note.text for note in run.notes if note.kind == "counterfactual"]
        if summary["counterfactual"] and not reasons:
            reasons = ["not the router that the logits were trained with"]
        change = 100 * (float(summary["layer_time_s"]) / base_time - 1) if base_time else 0.0
        fastest = "layer_time_s" not in best or summary["layer_time_s"] == best["layer_time_s"]
        cells = [
            (
                run.value(key).words(lambda number, key=key: named_quantity(key, number)),  # type: ignore[misc]
                key in best
                and not summary["counterfactual"]
                and summary[key] == best[key]
                and (fastest or not is_timed(key)),
            )
            for key in WORDS
        ]
        delta = "" if run is base else f"{change:+.1f} %".replace("-", "−")
        unsure = base_time > 0 and run is not base and not apart(base, run, "layer_time_s")
        delta += ", within the model's error" if unsure else ""
        verdict = "" if unsure or abs(change) < 0.05 else "better" if change < 0 else "worse"
        critical = critical_words(subjects_of(run).critical_ranks)
        rows.append(Row(name, f"./{quote(name, safe='')}/report.html", reasons, delta, verdict, critical, cells))
    return rows


def _best(trained: list[Result]) -> dict[str, float]:
    """The best value of every column in which the runs differ; none of numbers that tell of different ranks."""
    one_rank = len({subjects_of(run).critical_ranks for run in trained}) <= 1
    best: dict[str, float] = {}
    for key in WORDS:
        known = [float(run.summary[key]) for run in trained if run.summary[key] is not None]
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
