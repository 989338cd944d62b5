"""Cells of tables: what people read, and what a spreadsheet takes."""

import pytest

from moesim.report import DataTable, Quantity
from moesim.report.data_table import cell_html, row_html
from moesim.report.quantities import si_of
from tests.report.test_page import HOSTILE, Page


@pytest.mark.parametrize(
    ("cell", "words", "attributes"),
    [
        (Quantity(2.7213e-3, "s"), "2.721 ms", {"data-value": "0.0027213"}),
        (Quantity(120_433_123.0, "B"), "120.4 MB", {"data-value": "120433123"}),
        (Quantity(0.9312, "%"), "93.1 %", {"data-value": "0.9312"}),
        (Quantity(8.0), "8", {}),
        (Quantity(1234567.0), "1,234,567", {"data-value": "1234567"}),
        (Quantity(None, "s"), "–", {"data-value": ""}),
        (Quantity(float("nan"), "B/s"), "–", {"data-value": ""}),
        (Quantity(1e-3, "s", 9e-4, 2e-3), "1 ms (900 µs to 2 ms)",
         {"data-value": "0.001", "data-low": "0.0009", "data-high": "0.002"}),
        (Quantity(5e10, "B/s", text="400Gb/s"), "400Gb/s", {"data-value": "5e+10"}),
        (3, "3", {}), (0.123456, "0.12346", {}), (None, "–", {}),
    ],
)  # fmt: skip
def test_a_cell_says_it_for_people_and_holds_the_si_number(cell, words, attributes):
    heading = DataTable(("x",), [(cell,)]).headings()[0]
    page = Page(str(cell_html(cell, heading)))
    assert page.words() == words
    assert {name: value for name, value in page.attributes if name.startswith("data-")} == attributes


def test_a_heading_names_the_unit_that_its_copied_numbers_have():
    table = DataTable(
        ("time", "share", "wait (µs)", "rate (Gb/s)", "load (%)", "plain", "a thing (of note)"),
        [(Quantity(1e-3, "s"), Quantity(0.5, "%"), 3.5, 400.0, 12.0, 7, 1.0)],
    )
    copied = [heading.copied for heading in table.headings()]
    assert copied == [
        "time (s)",
        "share (fraction)",
        "wait (s)",
        "rate (B/s)",
        "load (fraction)",
        "plain",
        "a thing (of note)",
    ]
    assert [heading.scale for heading in table.headings()] == pytest.approx([1, 1, 1e-6, 1.25e8, 0.01, 1, 1])


def test_units_that_differ_from_row_to_row_are_on_the_cells():
    table = DataTable(("constant", "value"), [("set-up", Quantity(2e-6, "s")), ("rate", Quantity(4e10, "B/s"))])
    heading = table.headings()[1]
    assert heading.mixed and heading.copied == "value"
    rows = [row_html(row, table.headings()) for row in table.rows]
    assert 'data-unit="s"' in rows[0] and 'data-unit="B/s"' in rows[1]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_cell_is_only_text(text):
    table = DataTable((text,), [(text,), (Quantity(1.0, "s", text=text),)])
    for row in table.rows:
        page = Page(str(row_html(row, table.headings())))
        assert page.tags == ["td"] and {name for name, _ in page.attributes} <= {"class", "data-value"}


def test_a_number_stays_beside_its_unit_and_long_names_break_at_their_joints():
    table = DataTable(("key", "time"), [("routing.top_groups", Quantity(1.5e-3, "s", 1e-3, 2e-3))])
    html = str(row_html(table.rows[0], table.headings()))
    assert "routing.<wbr>top_<wbr>groups" in html
    assert ">1.5\u00a0ms (1 to 2)<" in html


def test_text_that_begins_with_a_digit_is_words_unless_it_is_a_number():
    rows = [("80 to 100 %", "400Gb/s", "1.5e-3", "–"), ("64 / 4", "8", "-3 %", "12 ms")]
    assert [heading.words for heading in DataTable(tuple("abcd"), rows).headings()] == [True, False, False, False]


def test_what_is_no_unit_scales_nothing():
    assert si_of("ms") == (1e-3, "s") and si_of("%") == (0.01, "fraction")
    assert si_of("of note") is None and si_of("") is None
