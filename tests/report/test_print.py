"""Pages on paper: chromium prints them, and every chart has ink inside its axes."""

import ctypes
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.report import render_comparison, render_placement, render_run, render_sweep
from moesim.report.palette import GRID, MARK
from moesim.results import Result
from tests.report import test_browser as shared
from tests.report.conftest import fake_result
from tests.report.test_placement_page import made, option
from tests.report.test_sweep_answer import per
from tests.report.test_sweep_page import EXPERTS, GROUPS, NIC, TOP_K, swept

pdfium = pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed: it reads the printed page")
pytestmark = shared.pytestmark
browser = shared.browser
AXES = "#5a6672"
"""Of the axes of a still, and of nothing else; see print.js."""
SCALE = 3.0
PAPER_PX = 718
"""Width of a sheet between its margins, in CSS pixels."""

PAGES: dict[str, Callable[[list[tuple[str, Result]]], str]] = {
    "run": lambda _: render_run(fake_result(counterfactual=True)),
    "comparison": lambda variants: render_comparison(variants, "toy"),
    "sweep": lambda _: render_sweep(per(swept((EXPERTS, GROUPS, TOP_K, NIC)), 2)),
    "sweep with a question": lambda _: render_sweep(replace(swept(), question="Which M for each K?")),
}


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def stroke(one: Any) -> tuple[int, ...] | None:
    parts = [ctypes.c_uint() for _ in range(4)]
    known = one.type == pdfium.raw.FPDF_PAGEOBJ_PATH and pdfium.raw.FPDFPageObj_GetStrokeColor(one.raw, *parts)
    return tuple(part.value for part in parts[:3]) if known else None


def ink_in_frames(file: Path) -> list[int]:
    """Pixels inside the axes of each chart that are not paper, axes, grid, levels, text or the soft edge of these."""
    found = []
    for page in pdfium.PdfDocument(file):
        image = page.render(scale=SCALE).to_numpy()[:, :, 2::-1].astype(np.int16)
        height = page.get_height()

        def part(box: tuple[float, ...], inset: int, height: float = height) -> tuple[slice, slice]:
            left, bottom, right, top = (
                round(SCALE * one) for one in (box[0], height - box[1], box[2], height - box[3])
            )
            return slice(top + inset, bottom - inset), slice(left + inset, right - inset)

        blank = (image > 246).all(axis=2)
        for colour in (GRID, AXES, MARK):
            blank |= np.abs(image - np.array(rgb(colour), np.int16)).max(axis=2) < 24
        text = page.get_textpage()
        for i in range(text.count_rects()):
            blank[part(text.get_rect(i), -2)] = True
        # What is left of thin lines is a pixel wide; curves, points, bars and cells are not.
        ink = ~blank
        for axis in (0, 1):
            ink = ink & np.roll(ink, 1, axis) & np.roll(ink, -1, axis)
        for one in page.get_objects(max_depth=10):
            if stroke(one) == rgb(AXES):
                found.append(int(ink[part(one.get_bounds(), 4)].sum()))
    return found


@pytest.mark.parametrize("kind", ["run", "comparison", "sweep"])
def test_every_chart_has_ink_inside_its_axes(kind: str, tmp_path: Path, variants: list[tuple[str, Result]]) -> None:
    html = PAGES[kind](variants)
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    command = [str(shared.CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'u'}",
               f"--print-to-pdf={tmp_path / 'report.pdf'}", (tmp_path / "report.html").as_uri()]  # fmt: skip
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    ink = ink_in_frames(tmp_path / "report.pdf")
    assert len(ink) == len(re.findall('class="canvas"', html)) > 3
    assert min(ink) > 40, ink


@pytest.mark.parametrize("kind", PAGES)
def test_nothing_is_cut_on_paper(browser: Any, kind: str, tmp_path: Path, variants: list[tuple[str, Result]]) -> None:
    file = tmp_path / "report.html"
    file.write_text(PAGES[kind](variants), encoding="utf-8")
    page = browser.new_page(viewport={"width": PAPER_PX, "height": 1000})
    page.goto(file.as_uri())
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    wide = page.evaluate("""Array.from(document.querySelectorAll("main table, main svg, main .card"))
        .filter((one) => one.checkVisibility() && (one.getBoundingClientRect().right > innerWidth
            || one.scrollWidth > one.parentElement.clientWidth + 1))
        .map((one) => one.closest("section, figure, .data").textContent.trim().slice(0, 40))""")
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER_PX
    page.close()


def test_a_long_table_has_its_headings_on_every_sheet_and_no_number_without_its_unit(
    browser: Any, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text(render_placement(made(*(option(f"policy_{i}", 0, 1e-3) for i in range(80)))), encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    page.close()
    sheets = [sheet.get_textpage().get_text_range() for sheet in pdfium.PdfDocument(tmp_path / "report.pdf")]
    rows = [text for text in sheets if re.search("policy_[0-9]+ 1\u00a0ms 58\u00a0ms", text)]
    assert len(rows) > 1 and all("MoE layers of a" in text for text in rows)


def test_all_maps_of_a_figure_are_printed_with_their_names(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(render_run(fake_result()), encoding="utf-8")
    page = browser.new_page(color_scheme="dark")
    page.goto(file.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    stills = page.locator("#chart-traffic .still")
    assert stills.locator("p").all_inner_texts() == ["dispatch", "combine"]
    assert stills.nth(0).is_visible() and stills.nth(1).is_visible()
    # In the dark too, paper is white and ink dark.
    assert page.locator("#chart-rank_load .still text").first.evaluate("(one) => getComputedStyle(one).fill") == (
        "rgb(28, 39, 51)"
    )
    page.close()
