"""Tables in a browser: each sorts by its numbers, filters, copies SI numbers with units, shows that it goes on."""

import contextlib
import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest

from moesim.report import render_comparison, render_run, render_sweep
from moesim.report.comparison import bands_over
from moesim.report.named_numbers import WORDS
from moesim.report.quantities import unit_of
from moesim.results import SUMMARY, Result
from tests.report import test_browser as shared
from tests.report.conftest import fake_result
from tests.report.test_sweep_page import EXPERTS, GROUPS, NIC, TOP_K, swept

pytestmark = shared.pytestmark
browser = shared.browser

PAGES = {
    "run": lambda: render_run(fake_result()),
    "comparison": lambda: render_comparison(two_runs(), "two", "before", noise(two_runs())),
    "sweep": lambda: render_sweep(swept((EXPERTS, GROUPS, TOP_K, NIC))),
}


def two_runs() -> list[tuple[str, Result]]:
    after = fake_result("after", layer_time_s=1.2345678e-3, nvlink_wire_bytes=120_433_123.0, gate_mass_lost=0.0123)
    after.intervals["layer_time_s"] = (1.1e-3, 1.5e-3)
    return [("before", fake_result("before")), ("after", after)]


def noise(runs: list[tuple[str, Result]]) -> Any:
    key = "layer_time_s"
    return tuple(bands_over([run.summary | {key: f * run.summary[key]} for f in (0.98, 1, 1.01)]) for _, run in runs)


@pytest.fixture(scope="module", params=PAGES)
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Iterator[Any]:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(PAGES[request.param](), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(shared.HANGS_MS)
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.name = request.param
    yield page
    page.close()


def press(button: Any) -> None:
    """A click that charts which are drawn meanwhile cannot move away from its button."""
    button.evaluate("(one) => one.click()")


def copied(data: Any) -> list[dict[str, str]]:
    """What a spreadsheet reads of a table."""
    button = data.locator(".copy")
    press(button)
    return list(csv.DictReader(io.StringIO(button.get_attribute("data-csv"))))


def test_every_table_filters_and_sorts_by_the_numbers_behind_its_words(page: Any) -> None:
    tables = page.locator("main table:not(.heat):not(.glossary)")
    boxes = page.locator(".data")
    assert boxes.count() == tables.count() > 4
    for i in range(boxes.count()):
        data = boxes.nth(i)
        rows = copied(data)
        name = data.locator(".scroll").get_attribute("aria-label")
        headings = data.locator("th")
        for column in range(min(headings.count(), 4)):
            key = list(rows[0])[column] if rows else ""
            if not rows or any(", low" in one for one in list(rows[0])[: column + 1]):
                break
            press(headings.nth(column).locator("button"))
            found = [row[key] for row in copied(data)]
            assert sorted(found) == sorted(row[key] for row in rows), name
            numbers = [value for value in found if value]
            with contextlib.suppress(ValueError):  # words
                assert [float(value) for value in numbers] == sorted(map(float, numbers)), (name, key)
            assert found == numbers + [""] * (len(found) - len(numbers)), (name, key)
        data.locator(".filter input").fill("no row has this")
        assert copied(data) == []
        assert data.locator(".shown").inner_text().startswith(f"0 of {len(rows)} ")
        data.locator(".filter input").fill("")
        assert len(copied(data)) == len(rows)


def test_no_copied_number_has_a_prefix(page: Any) -> None:
    for i in range(page.locator(".data").count()):
        data = page.locator(".data").nth(i)
        headings = data.locator("th")
        wordy = {one.inner_text() for one in headings.all() if one.get_attribute("class")}
        for row in copied(data):
            for heading, value in row.items():
                assert not any(f"({unit})" in heading for unit in ("ms", "µs", "us", "MB", "GB", "GB/s", "%")), heading
                if heading not in wordy | {"unit"} and value:
                    float(value)


@pytest.mark.parametrize("page", ["comparison"], indirect=True)
def test_a_comparison_copies_the_very_numbers_of_the_summaries(page: Any) -> None:
    rows = {row["variant"]: row for row in copied(page.locator("#variants .data").first)}
    for name, run in two_runs():
        for key, short in WORDS.items():
            unit = {"%": "fraction"}.get(unit_of(key), unit_of(key))
            heading, value = f"{short} ({unit})" if unit else short, run.summary.get(key)
            if heading not in rows[name]:  # said once, since it is the same in both
                assert len({str(one.summary.get(key)) for _, one in two_runs()}) == 1
                continue
            text = rows[name][heading]
            assert (text == "") if value is None else float(text) == pytest.approx(float(value), rel=1e-9), key
    assert float(rows["after"]["layer time, low (s)"]) == 1.1e-3 and rows["before"]["layer time, low (s)"] == ""
    assert float(rows["after"]["change (fraction)"]) == pytest.approx(1.2345678 / 1.6 - 1)
    numbers = {row["number"]: row for row in copied(page.locator("#noise section.data"))}
    assert {row["unit"] for key, row in numbers.items() if key.endswith("_time_s")} == {"s"}
    assert numbers["nvlink_wire_bytes"]["unit"] == "B" and float(numbers["nvlink_wire_bytes"]["after"]) == 120_433_123
    assert float(numbers["layer_time_s"]["after over seeds, high"]) == pytest.approx(1.01 * 1.2345678e-3)
    assert set(numbers) <= set(SUMMARY)


@pytest.mark.parametrize("page", ["sweep"], indirect=True)
def test_a_sweep_copies_the_values_of_its_axes_in_si_units(page: Any) -> None:
    rows = copied(page.locator("#points .data").first)
    heading = next(name for name in rows[0] if name.startswith(NIC.keys[0].rpartition(".")[2]))
    assert heading.endswith(" (B/s)")
    assert {float(row[heading]) for row in rows} == {50e9, 200e9}
    time = next(name for name in rows[0] if name.startswith("layer time"))
    assert time == "layer time (s)" and max(float(row[time]) for row in rows if row[time]) < 1e-3


@pytest.mark.parametrize("page", ["run"], indirect=True)
def test_charts_copy_si_numbers_where_they_show_prefixes(page: Any) -> None:
    rows = copied(page.locator("#chart-timeline"))
    spans = fake_result().tables["spans"]
    ends = spans[(spans.layer == 0)].end_s
    end = next(name for name in rows[0] if name.startswith("end"))
    assert end.endswith("(s)")
    assert max(float(row[end]) for row in rows) == pytest.approx(ends.max(), rel=1e-4)
    waits = copied(page.locator("#chart-wait"))
    assert float(waits[7]["0 (s)"]) == pytest.approx(3.5e-5, rel=1e-4)


@pytest.mark.parametrize("width", [1400, 375])
def test_a_wide_table_shows_on_which_side_it_goes_on(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(200)
    wide = page.evaluate(
        """() => Array.from(document.querySelectorAll(".scroll"), (scroll) => {
          scroll.scrollTo(0, 0);
          return scroll.scrollWidth > scroll.clientWidth + 1;
        }).map((wide, i) => wide ? i : -1).filter((i) => i >= 0)"""
    )
    assert wide or (page.name, width) in (("run", 1400), ("sweep", 1400))
    for i in wide:
        scroll = page.locator(".scroll").nth(i)
        first = scroll.locator("tbody tr").first.locator("td").first

        def goes_on(to: str, not_to: str, scroll: Any = scroll) -> bool:
            for _ in range(100):
                sides = scroll.evaluate("(one) => one.parentElement.className")
                if f"more-{to}" in sides and f"more-{not_to}" not in sides:
                    return True
                page.wait_for_timeout(50)
            return False

        assert goes_on("right", "left")
        at = first.bounding_box()["x"]
        scroll.evaluate("(one) => one.scrollTo(one.scrollWidth, 0)")
        assert goes_on("left", "right")
        assert first.bounding_box()["x"] == pytest.approx(at, abs=1)  # the first column stays
        # and leaves room for the others
        assert first.bounding_box()["width"] < 0.6 * scroll.bounding_box()["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
