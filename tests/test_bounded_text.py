"""Numbers, JSON and CSV of a user's file: what is taken, what is refused, and where the mistake is said to be."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import moesim
from moesim.bounded_text import csv_rows, number, read_json, whole
from moesim.errors import InputError


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63))
def test_a_number_as_python_writes_it_is_read_back(value):
    assert number(repr(value)) == float(value)


@pytest.mark.parametrize(
    "text",
    ["1_0", "\u0661\u0662", "nan", "inf", "1e400", "9" * 400, "0x10", "", "1 2", "43.5.1", "1,5", "\uff11", True],
)
def test_what_only_python_would_take_is_no_number(text):
    with pytest.raises(ValueError, match="a finite number is needed"):
        number(text)


def test_no_pattern_takes_digits_of_other_scripts():
    code = Path(moesim.__file__).parent
    of_any_script = {
        path.name for path in code.rglob("*.py") if re.search(r"\\d|\.isdigit\(|\.isdecimal\(", path.read_text())
    }
    assert of_any_script <= {"config_facts.py", "find_gates.py"}  # with isascii(); names of a program's own modules


@pytest.mark.parametrize(
    "override",
    [
        "cluster.nic_bandwidth=\u0664\u0660\u0660Gb/s",
        "cluster.topology=h100-\u0662x8-rail",
        "cluster.topology=h100-2x8-rail-\u0662to1",
        'thresholds=["layer_time_s < \u0662s"]',
        "cluster.overrides=[{where: n\u0660.gpu1.nic, bandwidth: 200Gb/s}]",
        "seed=\u0661",
    ],
)
def test_digits_of_other_scripts_are_refused(override):
    with pytest.raises(InputError):
        moesim.simulate(moesim.load_scenario("quickstart", [override]))


def test_a_whole_number_is_held_between_its_bounds():
    assert whole("16", 1, 16) == whole("1.6e1", 1, 16) == whole(16, 1, 16) == 16
    for text in ("0", "17", "1.5", "-1", "9" * 30, "x"):
        with pytest.raises(ValueError, match="a whole number from 1 to 16 is needed"):
            whole(text, 1, 16)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(json_values, st.sampled_from((None, 1)))
def test_json_is_read_as_the_library_reads_it(value, indent):
    text = json.dumps(value, indent=indent)
    assert read_json(text, "f.json") == json.loads(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1,\n "b": NaN}', "f.json:2:7: 'NaN' is no number that can be read"),
        ("[1,\n-Infinity]", "f.json:2:1: '-Infinity' is no number"),
        ("[1e400]", "f.json:1:2: '1e400' is no number"),
        ("[" + "9" * 5000 + "]", "f.json:1:2: '99999"),
        ("[18446744073709551616]", "f.json:1:2: '18446744073709551616' is no number"),
        ("[" * 100_000, "f.json:1:1: nested too deeply"),
        ('{"a":' * 100_000, "f.json:1:1: nested too deeply"),
        ('{"a": 1,\n}', "f.json:2:1: not valid JSON"),
        ("", "f.json:1:1: not valid JSON"),
    ],
)
def test_json_that_nothing_can_hold_is_refused_with_its_place(text, says):
    with pytest.raises(InputError) as refused:
        read_json(text, "f.json")
    assert str(refused.value).startswith(says)


def test_a_line_of_json_is_placed_in_its_file_and_infinity_may_be_let_through():
    with pytest.raises(InputError, match=r"f\.jsonl:7:2: 'NaN' is no number"):
        read_json("[NaN]", "f.jsonl", line=7)
    assert read_json("[0, Infinity]", "f.json", infinite=True) == [0, float("inf")]


def test_rows_of_csv_come_with_their_lines():
    assert list(csv_rows('a,b\n\n1,"2\n3"\n4,5\n', "f.csv")) == [(1, ["a", "b"]), (4, ["1", "2\n3"]), (5, ["4", "5"])]
    for text in ('a,b\n1,"2', "a\n" + "x" * 140_000, "a\n" + "x" * 110_000):
        with pytest.raises(InputError, match=r"f\.csv:2:1: not a CSV file"):
            list(csv_rows(text, "f.csv"))
