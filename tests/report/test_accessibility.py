"""Pages that everyone can read: text on colours, names for charts, and what axe-core finds on every kind of page."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moesim.report import render_comparison, render_run, render_sweep
from moesim.report.comparison import bands_over
from moesim.report.palette import PHASES, SERIES, cividis, ink_on
from moesim.results import Result
from moesim.validate.validation_page import page_of
from tests.report import test_browser as shared
from tests.report.conftest import fake_result
from tests.report.test_page import OUTCOMES, Page
from tests.report.test_sweep_answer import per
from tests.report.test_sweep_page import EXPERTS, GROUPS, NIC, TOP_K, swept
from tests.validate.test_validate_verbs import outcome

browser, opened = shared.browser, shared.opened
AXE = "axe-core@4"


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_on_every_colour_of_the_palette_has_a_contrast_of_four_and_a_half() -> None:
    """Bars and cells have the same colours in both themes, and so the same ink."""
    colours = (*PHASES.values(), *SERIES, *cividis())
    assert {
        colour: contrast(colour, ink_on(colour)) for colour in colours if contrast(colour, ink_on(colour)) < 4.5
    } == {}


def test_cividis_is_that_of_matplotlib() -> None:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    assert cividis() == tuple(to_hex(colour) for colour in colormaps["cividis"](range(256)))


def test_the_parts_of_a_bar_are_read_out(result: Result) -> None:
    said = [text for name, text in Page(render_run(result)).attributes if name == "aria-label"]
    assert (
        "toy: gate 0.02, permute 0.01, expert compute 0.3, unpermute 0.03, dispatch 0.4, combine 0.8, wait 0.04, "
        "lower bound 0.8, time per layer (ms)"
    ) in said


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's script, from npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: axe-core comes from there")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", AXE]
    if subprocess.run(command, check=False, timeout=120).returncode != 0:
        pytest.skip("npm could not install axe-core")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def pages() -> Iterator[tuple[str, str]]:
    runs = [("before", fake_result("before")), ("after", fake_result("after", layer_time_s=1.1e-3))]
    bands = [bands_over([run.summary | {"layer_time_s": f * run.summary["layer_time_s"]} for f in (0.9, 1, 1.1)])
             for _, run in runs]  # fmt: skip
    yield "run", render_run(fake_result(), thresholds=OUTCOMES)
    yield "comparison", render_comparison(runs, "before and after", "before", (bands[0], bands[1]))
    yield "sweep", render_sweep(per(swept((EXPERTS, GROUPS, TOP_K, NIC)), 2))
    yield "validation", page_of([outcome(0.01), outcome(-0.03, tokens=128), outcome(0.9, suspect=True)], [])


@pytest.mark.browser
@pytest.mark.skipif(shared.CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("kind", ["run", "comparison", "sweep", "validation"])
def test_axe_finds_nothing_serious_on_any_kind_of_page(browser: Any, axe: str, tmp_path: Path, kind: str) -> None:
    page, _ = opened(browser, dict(pages())[kind], tmp_path, 1400)
    page.evaluate(axe)
    found = {}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_timeout(300)
        result = page.evaluate("axe.run({resultTypes: ['violations']})")
        serious = [one for one in result["violations"] if one["impact"] in ("serious", "critical")]
        found |= {f"{theme}: {one['id']}": [node["html"][:120] for node in one["nodes"][:3]] for one in serious}
    assert found == {}
    page.close()
