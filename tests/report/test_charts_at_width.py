"""Charts in a browser, as wide as a phone: names and numbers on axes meet nothing and are whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from moesim.report import render_placement
from moesim.report.charts import BarChart, Chart, DotChart, LineChart, Series
from tests.report import test_browser as shared
from tests.report.test_placement_page import BEST, made

pytestmark = shared.pytestmark
browser = shared.browser
PHONE_PX, DESK_PX = 390, 1400
LINE = np.array([1.0, 2.0, 3.0, 4.0])
# Keeps what is written on each canvas, with its box in CSS pixels; cleared with the canvas.
KEEPS_TEXTS = """(() => {
  const on = CanvasRenderingContext2D.prototype, { fillText, clearRect } = on;
  on.fillText = function (text, x, y, ...rest) {
    const size = this.measureText(text), turned = this.getTransform();
    const corners = [-size.actualBoundingBoxLeft, size.actualBoundingBoxRight].flatMap((dx) => [
      -size.actualBoundingBoxAscent, size.actualBoundingBoxDescent].map((dy) => turned.transformPoint(new DOMPoint(x + dx, y + dy))));
    const xs = corners.map((one) => one.x), ys = corners.map((one) => one.y);
    if (text.trim()) (this.canvas.texts ??= []).push([text, Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]);
    return fillText.call(this, text, x, y, ...rest);
  };
  on.clearRect = function (...box) { this.canvas.texts = []; return clearRect.apply(this, box); };
})()"""  # noqa: E501
WRITTEN = """(figure) => {
  const found = [], size = figure.querySelector(".canvas").getBoundingClientRect();
  const look = (one) => { found.push(...(one.texts ?? [])); [...(one.shadowRoot?.children ?? []), ...one.children].forEach(look); };
  look(figure);
  return [size.width, size.height, found];
}"""  # noqa: E501


def charts() -> dict[str, Chart]:
    """What had no room on a phone: long names, many numbers, logarithms, names beside the last point."""
    names = ("deepep-low-latency / single-batch", "deepep-low-latency / two-batch", "nccl-direct / none") * 4
    words = {"title": "t", "caption": "c"}
    return {
        "saved": DotChart("saved", **words, x_label="bytes per layer of every sender (MB)", rows=names,
                          groups={"g": np.tile([100.0, 250.0, 420.0], 4)}, zero=True),
        "paid": LineChart("paid", **words, x_label="FLOPs per byte", y_label="loss", log_x=True, log_y=True, series=(
            Series("s", np.array([210.0, 640.0, 5200.0]), np.array([8.0, 30.0, 220.0]), "#0072b2"),)),
        "ageing": BarChart("ageing", **words, x_label="expert", y_label="selections", values=np.arange(256.0) + 9e4,
                           labels=tuple(str(1000 + one) for one in range(256))),
        "frontier": LineChart("frontier", **words, x_label="groups per token, M", y_label="time (ms)", series=(
            Series("by M", LINE, LINE, "#0072b2", point_labels=tuple(f"groups M = {one:g}" for one in LINE)),)),
    }  # fmt: skip


def written(browser: Any, file: Any, width: int, drawn: dict[str, Chart]) -> dict[str, Any]:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(shared.HANGS_MS)
    page.add_init_script(KEEPS_TEXTS)
    page.goto(file.as_uri())
    found = {}
    for key in drawn:
        figure = page.locator(f"#chart-{key}")
        figure.scroll_into_view_if_needed()
        shared.wait_until(page, f"document.querySelector('#chart-{key} .canvas').firstElementChild !== null")
        page.wait_for_timeout(400)
        found[key] = figure.evaluate(WRITTEN)
    page.close()
    return found


@pytest.fixture(scope="module", params=[PHONE_PX, DESK_PX])
def texts(browser: Any, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Iterator[dict[str, Any]]:
    drawn = charts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moesim.report.placement_page.placement_charts", lambda _: list(drawn.values()))
        file = tmp_path_factory.mktemp("page") / "report.html"
        file.write_text(render_placement(made(BEST)), encoding="utf-8")
    yield written(browser, file, request.param, drawn)


def test_what_is_written_on_a_chart_meets_nothing_and_is_whole(texts: dict[str, Any]) -> None:
    for key, (width, height, boxes) in texts.items():
        assert len(boxes) > 5, key
        for i, (text, left, top, right, bottom) in enumerate(boxes):
            assert left > -1 and top > -1 and right < width + 1 and bottom < height + 1, (key, text)
            for other, *box in boxes[:i]:
                across, down = min(right, box[2]) - max(left, box[0]), min(bottom, box[3]) - max(top, box[1])
                assert across <= 0 or down <= 0, (key, text, other)


def test_an_axis_of_whole_numbers_has_no_fractions_between_them(texts: dict[str, Any]) -> None:
    _, height, boxes = texts["frontier"]
    below = [text for text, _, top, _, _ in boxes if top > height - 50 and text[0].isdigit()]
    assert below and set(below) <= {"1", "2", "3", "4"}


def test_a_logarithmic_axis_has_numbers_where_its_points_are(texts: dict[str, Any]) -> None:
    beside = [float(text) for text, _, _, right, _ in texts["paid"][2] if text[0].isdigit() and right < 60]
    assert {10, 100} <= set(beside) and min(beside) <= 10
