"""The page of a sweep in a browser: choosing, filtering, sorting and copying, by mouse and by keyboard."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from moesim.report import render_comparison, render_sweep
from moesim.report.comparison import bands_over
from tests.report import test_browser as shared
from tests.report.conftest import fake_result
from tests.report.test_page import HOSTILE
from tests.report.test_sweep_answer import per
from tests.report.test_sweep_page import EXPERTS, GROUPS, NIC, TOP_K, hostile, swept

pytestmark = shared.pytestmark
browser, opened = shared.browser, shared.opened


def test_a_cell_or_a_row_shows_its_point_and_its_command(browser: Any, tmp_path: Path) -> None:
    page, trouble = opened(browser, render_sweep(swept()), tmp_path, 1400)
    card = page.locator("#point")
    assert card.locator("h2").inner_text() == "Point 6"
    page.get_by_role("button", name="n_experts = 256, top_groups = 4, top_k = 8: 196 µs").click()
    assert card.locator("h2").inner_text() == "Point 23"
    assert card.locator(".command").inner_text() == "moesim run m-by-k --out point-23"
    assert page.locator("tr.chosen").get_attribute("data-words").splitlines()[0] == "model.n_experts=256"
    page.get_by_role("button", name="top_k = 8: impossible").first.click()
    assert card.locator(".error").inner_text() == "K above M's experts"
    page.locator("tr", has=page.get_by_label("Point 7", exact=True)).locator("td").nth(4).click()
    assert card.locator("h2").inner_text() == "Point 7" and not card.locator(".error").is_visible()
    assert page.locator('.point[aria-pressed="true"]').get_attribute("data-point") == "7"
    # By keyboard: one stop in the map, arrows move, Enter chooses.
    page.locator('.point[data-point="7"]').focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert card.locator("h2").inner_text() == "Point 10"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    assert card.locator("h2").inner_text() == "Point 9"
    page.locator(".copy-command").click()
    shared.sync_api.expect(page.locator(".copy-command")).to_have_text("Copied")
    assert trouble == []
    page.close()


def test_the_table_filters_sorts_and_copies_what_it_shows(browser: Any, tmp_path: Path) -> None:
    page, trouble = opened(browser, render_sweep(swept()), tmp_path, 1400)
    box, shown = page.locator("#points .filter input").first, page.locator("tbody tr[data-words]:visible")
    assert shown.count() == 24
    box.fill("top_k=8 n_experts=64")
    assert shown.count() == 4 and page.locator("#points .shown").first.inner_text() == "4 of 24 points"
    heading = page.locator("#points th", has_text="layer time")
    heading.locator("button").click()
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert [row.split()[0] for row in shown.all_inner_texts()] == ["11", "8", "5", "2"]
    copy = page.locator("#points .copy").first
    copy.click()
    lines = copy.get_attribute("data-csv").splitlines()
    assert lines[0].startswith("point,n_experts,top_groups,top_k,layer time (s)")
    assert [line.split(",")[:5] for line in lines[1:]] == [
        ["11", "64", "4", "8", "4.9e-05"],
        ["8", "64", "3", "8", "3.9e-05"],
        ["5", "64", "2", "8", "2.9e-05"],
        ["2", "64", "1", "8", ""],
    ]
    box.fill("nothing has this")
    assert shown.count() == 0
    assert trouble == []
    page.close()


def test_the_maps_of_a_held_axis_change_with_its_value(browser: Any, tmp_path: Path) -> None:
    page, trouble = opened(browser, render_sweep(swept((EXPERTS, GROUPS, TOP_K, NIC))), tmp_path, 1400)
    assert page.locator(".map-panel:visible").count() == 2
    before = page.locator(".map-panel:visible .point").first.get_attribute("data-point")
    page.locator(".held select").select_option("1.6Tb/s")
    assert page.locator(".map-panel:visible").count() == 2
    assert page.locator(".map-panel:visible .point").first.get_attribute("data-point") == str(int(before) + 1)
    assert trouble == []
    page.close()


def test_a_hostile_sweep_in_the_dark_fits_a_phone(browser: Any, tmp_path: Path) -> None:
    page, trouble = opened(browser, render_sweep(hostile(HOSTILE)), tmp_path, 375, dark=True)
    page.locator(".point").nth(3).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert trouble == []
    page.close()


def test_the_best_of_each_group_is_starred_drawn_and_fits_a_phone(browser: Any, tmp_path: Path) -> None:
    data = replace(per(swept(), 2), question="Which M is worth its gate mass for each K, and would it stay so?")
    page, trouble = opened(browser, render_sweep(data), tmp_path, 375)
    assert page.locator("h1").inner_text() == data.question
    assert page.locator(".point .star").count() == 3
    assert page.locator("#chart-groups .canvas").first.evaluate("(box) => box.firstElementChild !== null")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert trouble == []
    page.close()


def test_two_runs_with_their_noise_fit_a_phone(browser: Any, tmp_path: Path) -> None:
    runs = [("before", fake_result("before")), ("after", fake_result("after", layer_time_s=1.1e-3))]
    first, second = (
        bands_over([run.summary | {"layer_time_s": factor * run.summary["layer_time_s"]} for factor in (0.98, 1, 1.01)])
        for _, run in runs
    )
    html = render_comparison(runs, "before and after", "before", (first, second))
    page, trouble = opened(browser, html, tmp_path, 375, dark=True)
    assert page.locator("#chart-noise .canvas").evaluate("(box) => box.firstElementChild !== null")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert trouble == []
    page.close()
