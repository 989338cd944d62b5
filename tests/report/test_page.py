"""The pages as text: what they say, that they stand alone, that no name can become markup."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.report import ThresholdOutcome, render_comparison, render_run, run_figures
from moesim.report.charts import LineChart, Mark, Series
from moesim.report.comparison_charts import comparison_charts
from moesim.report.page import script_json
from moesim.report.run_page import verdict
from moesim.report.static import figure_files
from moesim.results import Note, Result, load_result
from tests.report.conftest import fake_result, renamed

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><svg onload=alert(1)>",
    "' autofocus onfocus=alert(1) x='",
    "javascript:alert(1)//",
    "{{ 7 * 7 }} {% raw %}",
    "\u202egnp.exe \u2028 \u2029",
    "</style><style>*{display:none}",
    "$$\\href{x}{y}$$ \\(a\\)",
    "<!-- --> ]]> &lt;b&gt;",
)


class Page(HTMLParser):
    """Elements, attributes and data scripts of a page, where long names may be broken left out."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text: list[str] = []
        self._script: dict[str, str | None] | None = None
        self.feed(html.replace("<wbr>", ""))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "script":
            self._script = dict(attrs)
            self.scripts.append((self._script, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[-1] = (self._script, self.scripts[-1][1] + data)
        else:
            self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


OUTCOMES = (ThresholdOutcome("layer_time_s < 2ms", 1.6e-3, True), ThresholdOutcome("max_violation < 1", 1.5, False))


@pytest.fixture(scope="module")
def html(result: Result) -> str:
    return render_run(result, thresholds=OUTCOMES)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def comparison(variants: list[tuple[str, Result]]) -> str:
    return render_comparison(variants, "toy")


def test_the_first_screen_names_the_bottleneck_and_the_distance_to_the_bound(page: Page) -> None:
    assert (
        "Bottleneck: NVLink, 61 % of the layer time. The layer takes 1.6 ms, 2.00 times its lower bound of 800 µs: "
        "at most 50 % is left to win with this routing on these wires." in page.words()
    )


def test_thresholds_are_shown_as_kept_or_missed(page: Page) -> None:
    assert "✓ kept layer_time_s < 2ms" in page.words()
    assert "✗ missed max_violation < 1" in page.words()


def test_every_headline_number_stands_beside_what_to_compare_it_with(page: Page) -> None:
    words = page.words()
    for text in ("lower bound 800 µs · 2.00 ×", "uniform router: 1.11", "4,096 distinct of 8,192 tokens", "Seed 7"):
        assert text in words


def test_every_bandwidth_is_named_and_defined(page: Page) -> None:
    words = page.words()
    for name in ("algbw", "busbw", "deepep_rdma", "deepep_nvl", "wire, NVLink"):
        assert name in words


def test_a_counterfactual_run_says_so_above_everything_else() -> None:
    notes = (Note("info", "plain"), Note("counterfactual", "bias off on logits trained with it"))
    words = Page(render_run(fake_result(counterfactual=True, notes=notes))).words()
    assert words.index("Counterfactual bias off on logits trained with it") < words.index("Bottleneck:")


def test_a_run_without_traffic_or_bound_still_has_a_page() -> None:
    result = fake_result(layers=1, training=False, lower_bound_s=None, expert_load_max_over_mean=None)
    table = result.tables.columns("transfers")
    table |= {name: values[:0] for name, values in table.items()}
    series = result.tables.columns("link_series")
    series |= {name: values[:0] for name, values in series.items()}
    page = Page(render_run(result))
    assert "The layer takes 1.6 ms." in page.words()
    assert "json-traffic-0" not in [value for name, value in page.attributes if name == "id"]
    assert verdict(renamed(result, layer_time_s=0.0, lower_bound_s=0.0)).text.endswith("0 µs.")


def test_a_page_holds_no_address_of_the_network(page: Page) -> None:
    for name, value in page.attributes:
        if name in ("src", "href", "action", "data", "poster", "srcset"):
            assert value.startswith(("#", "./")), (name, value)
    assert "link" not in page.tags and "iframe" not in page.tags and "img" not in page.tags


def test_only_the_two_scripts_of_the_policy_can_run(page: Page) -> None:
    policy = next(value for name, value in page.attributes if value.startswith("default-src 'none'"))
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    running = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    assert len(running) == 2
    for text in running:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_a_page_stays_far_below_five_megabytes(html: str, comparison: str) -> None:
    assert len(html.encode()) < 3e6
    assert len(comparison.encode()) < 3e6


def test_a_saved_and_loaded_result_gives_the_same_page(result: Result, html: str, tmp_path: Path) -> None:
    assert render_run(load_result(result.save(tmp_path / "run")), thresholds=OUTCOMES) == html


def test_equal_results_give_equal_comparisons(variants: list[tuple[str, Result]], comparison: str) -> None:
    assert render_comparison(variants, "toy") == comparison


def test_the_wall_clock_is_not_on_the_page(html: str) -> None:
    assert "2026-01-02" not in html
    assert "abc123" in html


def test_every_chart_has_its_numbers_in_a_table(page: Page) -> None:
    charts = sum(name == "data-chart" for name, _ in page.attributes)
    assert charts >= 12
    assert page.tags.count("figure") <= page.tags.count("details")
    assert page.tags.count("figcaption") == page.tags.count("figure")


def attacked_run(texts: tuple[str, ...]) -> Page:
    """A page with the texts in every place that somebody else's text can reach."""
    first, second = texts[0], texts[-1]
    run = fake_result(
        name=first,
        bottleneck=f"{second}: 3 % of the layer time",
        notes=tuple(Note(kind, text) for text in texts for kind in ("info", "counterfactual")),
    )
    run.explanation["topology"]["name"] = run.explanation["kernels"][0]["note"] = first
    run.explanation["held_by_s"] |= {f"link {text}": 1e-3 for text in texts}
    busiest = run.explanation["busiest_links"]["dispatch"]
    run.explanation["busiest_links"]["dispatch"] = [{**busiest[0], "link": text} for text in texts]
    links = run.tables.columns("links")
    for column in ("link", "source", "target"):
        links[column] = [texts[i % len(texts)] for i in range(len(links[column]))]
    run.provenance.update({f"fact {i}": text for i, text in enumerate(texts)})
    return Page(render_run(run, thresholds=tuple(ThresholdOutcome(text, None, False) for text in texts)))


def attacked_comparison(names: tuple[str, ...]) -> Page:
    runs = [(name, fake_result(name, seed=i, recording=f"r{i}")) for i, name in enumerate(names)]
    return Page(render_comparison(runs, title=names[2]))


@pytest.mark.parametrize("attacked_page", [attacked_run, attacked_comparison])
def test_hostile_text_is_only_text(attacked_page: Callable[[tuple[str, ...]], Page]) -> None:
    harmless, attacked = attacked_page(tuple(f"name{i}" for i in range(len(HOSTILE)))), attacked_page(HOSTILE)
    assert attacked.tags == harmless.tags
    assert [name for name, _ in attacked.attributes] == [name for name, _ in harmless.attributes]
    assert all(value.startswith(("#", "./")) for name, value in attacked.attributes if name == "href")
    for kind, text in attacked.scripts:
        if kind.get("type") == "application/json":
            assert json.loads(text)
            assert "<" not in text


def test_charts_never_hand_tex_to_the_renderer() -> None:
    runs = [("a", fake_result("a")), ("$$x$$", fake_result("b", seed=1))]
    page = Page(render_comparison(runs, "t"))
    data = "".join(text for kind, text in page.scripts if kind.get("type") == "application/json")
    assert "$$" not in data and "$ $x$ $" in data


def test_json_in_a_script_cannot_end_it() -> None:
    text = script_json({"a": "</script>\u2028\u2029<!--", "b": [1.5, None]})
    assert not re.search(r"[<>&\u2028\u2029]", text)
    assert json.loads(text) == {"a": "</script>\u2028\u2029<!--", "b": [1.5, None]}


def test_the_verdict_compares_trained_routers_only(comparison: str) -> None:
    words = Page(comparison).words()
    # v2-m1 is faster still, but what-if.
    assert "v3 is the fastest of 3 routers on their own training: 1 ms per layer, 50 % less than v1 (2 ms)." in words
    assert "2 of 5 runs are counterfactual" in words


def test_what_if_runs_are_marked_with_their_reason_and_never_bold(comparison: str) -> None:
    rows = {
        match[2]: match[1]
        for match in re.finditer(r'<tr([^>]*)><td class="text name"[^>]*><a href="\./([^/]+)/', comparison)
    }
    assert [name for name, attributes in rows.items() if "what-if" in attributes] == ["v2-m1", "v2-m5"]
    table = comparison[comparison.index("why counterfactual") :]
    row = next(part for part in table.split("<tr") if "v2-m1" in part)
    assert "another limit than trained with" in row and 'class="best"' not in row


def test_changes_are_measured_against_the_baseline(variants: list[tuple[str, Result]]) -> None:
    words = Page(render_comparison(variants, "toy", baseline="v3")).words()
    assert "against v3" in words and "v1 +100.0 %" in words
    assert "workload.recording.name tiny-v3 tiny-v1" in words


def test_runs_that_do_not_differ_are_said_not_to() -> None:
    same = [("a", fake_result("a")), ("b", fake_result("b"))]
    assert "No difference: 1.6 ms per layer for each of 2." in Page(render_comparison(same, "t")).words()
    assert "a: 1.6 ms per layer." in Page(render_comparison(same[:1], "t")).words()


def test_an_unknown_baseline_is_refused(variants: list[tuple[str, Result]]) -> None:
    with pytest.raises(InputError, match="'v9' is not one of the runs"):
        render_comparison(variants, "toy", baseline="v9")
    with pytest.raises(InputError, match="one name: v1, v1"):
        render_comparison([variants[0], variants[0]], "toy")


def test_a_page_is_made_without_bokeh_matplotlib_or_pandas() -> None:
    code = """
import sys
from tests.report.conftest import fake_result
from tests.report.test_sweep_page import swept
from moesim.report import render_comparison, render_run, render_sweep
render_run(fake_result()), render_comparison([("a", fake_result()), ("b", fake_result())], "t"), render_sweep(swept())
print(sorted({"bokeh", "matplotlib", "pandas"} & {name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_chart_of_a_run_is_a_file_too() -> None:
    files = run_figures(fake_result("$x_{$ <b> \x07"))
    names = {"time", "traffic", "link_utilisation", "expert_load", "rank_load", "timeline", "wait", "rank_wait",
             "bandwidth", "layer_imbalance", "layer_losses", "training_imbalance", "training_losses",
             "training_bias", "rank_times", "roofline", "link_map", "node_traffic"}  # fmt: skip
    assert set(files) == {f"figures/{name}.{suffix}" for name in names for suffix in ("svg", "png")}
    assert all(data.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml") for name, data in files.items())


def test_files_name_levels_and_the_best_point_as_the_page_does() -> None:
    x = np.arange(3.0)
    series = Series("a", x, x, "#112233", "line", ("first", "second ★", ""))
    chart = LineChart("k", "t", "c", "x", "y", (series,), (Mark("mean", 1.5),))
    drawn = figure_files([chart])["figures/k.svg"].decode()
    assert "mean: 1.5" in drawn and "second" in drawn and "★" not in drawn


def test_figures_are_the_same_each_time_and_carry_no_date(variants: list[tuple[str, Result]]) -> None:
    chosen = [chart for chart in comparison_charts(variants).values() if chart is not None]
    files = figure_files(chosen)
    assert figure_files(chosen) == files
    assert {"figures/imbalance.svg", "figures/expert_loads.png", "figures/trade_off.svg"} <= set(files)
    assert not any(b"<dc:date>" in data for data in files.values())
