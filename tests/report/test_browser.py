"""The pages in a browser: no error, no request, everything drawn, buttons work, a phone can read it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moesim.report import render_comparison, render_run
from moesim.results import Note, Result
from tests.report.conftest import fake_result

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next((path for path in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser")) if path.exists()), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

HANGS_MS = 240_000
"""After this a page hangs: far more than any machine, however loaded, takes to draw it."""
EVIL = "=cmd|' /C calc'!A0</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


def wait_until(page: Any, expression: str) -> None:
    """Ask the page until it says yes. `wait_for_function` evaluates text inside the page, which its policy forbids."""
    for _ in range(HANGS_MS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true on the page: {expression}")


def opened(browser: Any, html: str, folder: Path, width: int, dark: bool = False) -> tuple[Any, list[str]]:
    """A page read from end to end, and everything that went wrong on it."""
    file = folder / "report.html"
    file.write_text(html, encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page.set_default_timeout(HANGS_MS)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: trouble.append("a dialog opened"))
    page.on("request", lambda request: None if request.url == file.as_uri() else trouble.append(request.url))
    page.goto(file.as_uri())
    # What is folded away is drawn once it is opened.
    page.evaluate("document.querySelectorAll('details.fold').forEach((one) => { one.open = true; })")
    boxes = page.locator(".canvas:not([hidden])")
    for i in range(boxes.count()):  # each is drawn when it comes into view
        boxes.nth(i).scroll_into_view_if_needed()
        wait_until(page, f"document.querySelectorAll('.canvas:not([hidden])')[{i}].firstElementChild !== null")
    page.wait_for_timeout(300)
    return page, trouble


def hostile_run() -> Result:
    result = fake_result(name=EVIL, notes=(Note("info", EVIL),))
    links = result.tables.columns("links")
    links["link"] = [EVIL] * len(links["link"])
    return result


def test_a_run_page_works_without_errors_or_requests(browser: Any, tmp_path: Path) -> None:
    page, trouble = opened(browser, render_run(hostile_run()), tmp_path, 1400)
    assert trouble == []
    assert page.evaluate("document.querySelector('#behind').getBoundingClientRect().height") > 200
    boxes = page.locator("#chart-traffic .canvas")
    assert [boxes.nth(i).is_visible() for i in range(2)] == [True, False]
    page.locator("#chart-traffic").get_by_role("button", name="combine").click()
    assert [boxes.nth(i).is_visible() for i in range(2)] == [False, True]
    drawn = "document.querySelectorAll('#chart-traffic .canvas')[1].firstElementChild"
    wait_until(page, f"{drawn}?.getBoundingClientRect().width > 300")
    # The first screen is the answer: the trust strip ends above the fold.
    assert page.evaluate("document.querySelector('.trust').offsetTop") < 900
    # A definition appears when its tile has the focus.
    tile = page.locator(".tile").first
    assert not tile.locator(".tip").is_visible()
    tile.focus()
    assert tile.locator(".tip").is_visible()
    # Copied cells run no formula in a spreadsheet; numbers stay numbers.
    links, experts = page.locator("#traffic section.data .copy"), page.locator("#chart-expert_load .copy")
    links.click()
    lines = links.get_attribute("data-csv").splitlines()
    assert lines[0] == "phase,link,class,from → to,utilisation (fraction),bytes (B),peak (B/s),busy (s)"
    assert f"'{EVIL}" in lines[1] and not any(",=" in line for line in lines)
    page.locator("#chart-expert_load summary").click()
    experts.click()
    lines = experts.get_attribute("data-csv").splitlines()
    assert lines[0] == "expert,selections,× mean,on rank"
    assert all(float(line.split(",")[1]) > 0 for line in lines[1:])
    assert trouble == []
    page.close()


def test_the_nearest_numbers_are_told_wherever_the_pointer_is(browser: Any, tmp_path: Path) -> None:
    page, trouble = opened(browser, render_run(fake_result()), tmp_path, 1400)
    for key in ("link_utilisation", "expert_load", "rank_wait", "layer_losses", "traffic"):
        box = page.locator(f"#chart-{key} .canvas").first
        box.scroll_into_view_if_needed()
        size = box.bounding_box()
        texts: list[str] = []
        for across in (0.3, 0.5, 0.7):
            box.hover(position={"x": across * size["width"], "y": 0.3 * size["height"]})
            page.locator(".bk-tooltip-content").first.wait_for(state="attached", timeout=10_000)
            texts.append(" ".join(page.locator(".bk-tooltip-content").all_inner_texts()))
        page.locator("h1").hover()
        assert all(any(letter.isdigit() for letter in text) for text in texts), (key, texts)
        assert not any("NaN" in text or "???" in text for text in texts), (key, texts)
    assert trouble == []
    page.close()


def test_an_axis_writes_small_and_large_numbers_in_full(browser: Any, tmp_path: Path) -> None:
    page, _ = opened(browser, render_run(fake_result()), tmp_path, 1400)
    written = page.evaluate("""Bokeh.documents.flatMap((one) => [...one._all_models.values()])
        .filter((one) => one.type === "Figure")
        .flatMap((one) => [[one.left[0], one.y_range], [one.below[0], one.x_range]])
        .filter(([axis]) => axis.type === "LogAxis")
        .map(([axis, {end}]) => [end, axis.formatter.doFormat([1e-7, 1e-4, 0.05, 1, 2000, 15000], {})])""")
    small = [texts[:5] for end, texts in written if end < 10_000]
    large = [texts[1:] for end, texts in written if end >= 10_000]
    assert small and all(texts == ["1e-7", "0.0001", "0.05", "1", "2000"] for texts in small)
    assert large and all(texts == ["0.0001", "0.05", "1", "2,000", "15,000"] for texts in large)
    page.close()


def test_a_comparison_in_the_dark_fits_a_phone(
    browser: Any, tmp_path: Path, variants: list[tuple[str, Result]]
) -> None:
    html = render_comparison([*variants, (EVIL, hostile_run())], EVIL)
    page, trouble = opened(browser, html, tmp_path, 375, dark=True)
    assert trouble == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.close()
