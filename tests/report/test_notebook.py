"""What a notebook shows of a result, a comparison and a sweep; and the example notebook, cell by cell."""

import ast
import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

import moesim
from moesim.report import compare
from moesim.report.quantities import named_quantity
from tests.report.conftest import fake_result, renamed
from tests.report.test_page import HOSTILE, Page

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "notebook.ipynb"


def rows_of(html: str) -> dict[str, list[tuple[str, str]]]:
    """Cells of each row by the first: the words, and the number behind them."""
    rows = re.findall(r"<tr>(<td.*?)</tr>", html.replace("<wbr>", "").replace("\xa0", " "))
    cells = [re.findall(r'<td[^>]*?(?: data-value="([^"]*)")?[^>]*>(.*?)</td>', row) for row in rows]
    return {row[0][1]: [(text, value) for value, text in row[1:]] for row in cells}


def stands_alone(html: str) -> None:
    page = Page(html)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            picture = base64.b64decode(value.removeprefix("data:image/svg+xml;base64,"))
            assert picture.startswith(b"<?xml") and b"<script" not in picture and b'href="http' not in picture
    # The style reaches nothing outside.
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    selectors = [one.strip() for rule in style.split("}")[:-1] for one in rule.split("{")[0].split(",")]
    assert selectors and all(one.startswith(".moesim-shown") for one in selectors)
    assert len(html) < 500_000


def test_a_result_shows_its_verdict_its_numbers_and_its_charts() -> None:
    result = fake_result()
    result.intervals["layer_time_s"] = (1.5e-3, 1.9e-3)
    html = result._repr_html_()
    stands_alone(html)
    assert "Bottleneck: NVLink, 61 % of the layer time. The layer takes 1.6 ms" in Page(html).words()
    rows = rows_of(html)
    assert rows["layer time"][0] == ("1.6 ms (1.5 to 1.9)", "0.0016")
    assert rows["NVLink bytes"][0] == ("3 GB", "3000000000")
    assert html.count("<img") == 3
    assert "estimated: all-to-all rates are defaults" in html


def test_a_comparison_shows_the_numbers_that_differ() -> None:
    before = fake_result()
    after = renamed(
        before, layer_time_s=1.2e-3, step_time_s=2.4e-3, nic_wire_bytes=5e8, lower_bound_s=8e-4 * (1 + 1e-12)
    )
    html = compare(before, after, ("slow", "fast"))._repr_html_()
    stands_alone(html)
    assert "fast: 1.2 ms per layer, slow 1.6 ms: 25 % less, better." in Page(html).words()
    rows = rows_of(html)
    assert set(rows) == {"layer time", "step time", "NIC bytes"}
    assert [text for text, _ in rows["NIC bytes"]] == ["1 GB", "500 MB", "-50 %", "better"]
    assert html.count("<img") == 1
    same = compare(before, before)._repr_html_()
    assert "b: 1.6 ms per layer, a 1.6 ms, same." in Page(same).words() and "<img" not in same


def test_hostile_names_are_only_text_in_a_notebook() -> None:
    for text in HOSTILE:
        stands_alone(fake_result(name=text)._repr_html_())
    for names in zip(HOSTILE[::2], HOSTILE[1::2], strict=True):
        stands_alone(compare(fake_result(), fake_result(layer_time_s=1e-3), names)._repr_html_())


@pytest.mark.jit
def test_the_example_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    names: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [] and cell["execution_count"] is None
        # As a kernel does: run all but the last expression, whose value is shown.
        tree = ast.parse("".join(cell["source"]))
        *first, last = tree.body
        exec(compile(ast.Module(first, []), cell["id"], "exec"), names)  # noqa: S102 - ours
        assert isinstance(last, ast.Expr)
        shown[cell["id"]] = eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)  # noqa: S307 - ours
    for cell in ("scenario", "compare", "sweep"):
        stands_alone(shown[cell]._repr_html_())
    before, points = shown["scenario"], shown["sweep"]
    time = named_quantity("layer_time_s", before.summary["layer_time_s"])
    assert f"The layer takes {time}" in before._repr_html_()
    html = points._repr_html_()
    ok = points[points["status"] == "ok"]
    best = ok.loc[ok["layer_time_s"].idxmin()]
    assert float(rows_of(html)[str(best["point"])][2][1]) == pytest.approx(best["layer_time_s"], rel=1e-9)
    assert html.count("<img") == 2
    # A part of a sweep is a plain table, and so is one that was changed.
    assert "dataframe" in shown["part"]._repr_html_()
    points["mine"] = 1
    assert "dataframe" in points._repr_html_() and "mine" in points._repr_html_()
    assert isinstance(before, moesim.Result)
