"""What is drawn as a mutation, what is left alone, and that a small project's survivors are found."""

import ast
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import mutations
from benchmarks.mutations import Mutation, mutations_of

ROOT = Path(__file__).parents[1]

SAMPLE = '''"""A docstring - 1."""
from typing import Any
LIMIT: int | None = 3
WORDS = ["a" + "b"]

@cache(maxsize=7)
def f(x: dict[str, int], n=2):
    """Return x[0]."""
    if x[0] < n:
        raise ValueError(f"{n - 1} of " + str(n))
    assert n > 0
    print(n - 5)
    total = 0.5
    total += x[i]
    for a, b in zip(x[1:n], x[-1:], strict=True):
        total = a * b
    return x[i, "k"] - x[i, i] if isinstance(x, int | float) else NDArray[0]
'''
KEYS = [
    "m.py:<module>:constant 3 -> 4",
    "m.py:f:constant 2 -> 3",
    "m.py:f:comparison x[0] < n -> (x[0] <= n)",
    "m.py:f:index 0 -> 1",
    "m.py:f:constant 0.5 -> 0.75",
    "m.py:f:arithmetic total += x[i] -> total -= x[i]",
    "m.py:f:index i -> i + 1",
    "m.py:f:index 1 -> 2",
    "m.py:f:index n -> n + 1",
    "m.py:f:index -1 -> -2",
    "m.py:f:arithmetic a * b -> (a / b)",
    "m.py:f:arithmetic x[i, 'k'] - x[i, i] -> (x[i, 'k'] + x[i, i])",
    "m.py:f:index i, 'k' -> 'k', i",
    "m.py:f:index i -> i + 1 (number 2)",
    "m.py:f:index i -> i + 1 (number 3)",
    "m.py:f:index i -> i + 1 (number 4)",
]


def test_numbers_comparisons_arithmetic_and_indices_change_and_words_types_and_errors_do_not():
    found = mutations_of("m.py", SAMPLE.encode())
    assert sorted(one.key.replace('"', "'") for one in found) == sorted(KEYS)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Some packages of the repository; drawing from all takes a while."""
    root = tmp_path_factory.mktemp("packages")
    for name in ("balance", "placement", "report", "results", "record"):
        shutil.copytree(ROOT / "moesim" / name, root / "moesim" / name)
    return root


def test_every_mutation_drawn_is_another_program(packages):
    drawn = mutations.draw(packages, 60, 20, 0)
    assert len(drawn) == len({one.key for one in drawn}) == 80
    for one in drawn:
        source = (ROOT / one.file).read_bytes()
        mutated = one.applied(source)
        assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source)), one.key
        assert mutated[: one.start] == source[: one.start]
        assert mutated.endswith(source[one.end :])


def test_the_draw_follows_the_seed_and_the_lines_of_code(packages):
    drawn = mutations.draw(packages, 60, 20, 0)
    assert mutations.draw(packages, 60, 20, 0) == drawn
    assert mutations.draw(packages, 60, 20, 1) != drawn
    of_kernels = Counter(one.file for one in drawn[60:])
    placement = {f"moesim/placement/{name}.py" for name in ("node_swaps", "placement_worth", "replica", "slots")}
    assert of_kernels.keys() == {"moesim/balance/sequence_load.py", *placement}
    plain = Counter(one.package for one in drawn[:60])
    assert plain.keys() == {"balance", "placement", "report", "results"}
    assert plain["report"] > 2 * plain["balance"] > 0
    assert {one.kind for one in drawn if one.package == "report"} == {"comparison", "arithmetic", "index"}


def test_shares_are_in_proportion_and_leave_nothing_over():
    assert mutations._shared_out(10, Counter(a=600, b=310, c=90)) == {"a": 6, "b": 3, "c": 1}
    assert mutations._shared_out(2, Counter(a=1, b=1, c=1)) == {"a": 1, "b": 1, "c": 0}


def test_tests_that_import_the_module_come_first():
    files = mutations.tests_of(ROOT, "network", "moesim/network/solve.py")
    assert files[0] == "tests/network/test_equal_flows.py" and "tests/network/test_laws.py" in files
    folders = {Path(file).parts[1] for file in mutations.tests_of(ROOT, "measure", "moesim/measure/critical.py")}
    assert folders == {"measure", "run"}
    assert "tests/test_units.py" in mutations.tests_of(ROOT, "moesim", "moesim/units.py")


def test_every_equivalent_mutation_has_its_reason(tmp_path):
    assert all(mutations.equivalent().values())
    listed = tmp_path / "equivalent.txt"
    listed.write_text("# a comment\n\nm.py:f:constant 1 -> 2\n    Any number\n    will do.\n")
    assert mutations.equivalent(listed) == {"m.py:f:constant 1 -> 2": "Any number will do."}
    listed.write_text("m.py:f:constant 1 -> 2\n")
    with pytest.raises(AssertionError, match="no reason"):
        mutations.equivalent(listed)


def test_every_equivalent_mutation_can_still_be_drawn():
    listed = set(mutations.equivalent())
    files = {key.partition(":")[0] for key in listed}
    assert not listed - {one.key for file in files for one in mutations_of(file, (ROOT / file).read_bytes())}


@pytest.fixture
def project(tmp_path):
    """A project of one function, of which one branch is tested."""
    root = tmp_path / "project"
    for name in ("benchmarks/__init__.py", "benchmarks/mutations.py", "tests/kernel_cache.py", "tests/conftest.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\npythonpath = ["."]\nmarkers = ["lab", "browser", "slow", "jit"]\n'
    )
    for name, text in {
        "moesim/__init__.py": "",
        "moesim/cost/__init__.py": "",
        "moesim/cost/price.py": "def price(n):\n    if n > 10:\n        return 8 * n\n    return 9 * n\n",
        "tests/cost/test_price.py": "from moesim.cost.price import price\ndef test_few():\n    assert price(2) == 18\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_no_test_notices_survives_and_is_tried_again_when_the_tests_change(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mutations, "ROOT", project)
    monkeypatch.setattr(
        mutations, "equivalent", lambda: {"moesim/cost/price.py:price:comparison n > 10 -> (n >= 10)": "x"}
    )
    state = tmp_path / "state.jsonl"
    monkeypatch.setattr(sys, "argv", ["mutations", "--plain", "9", "--kernels", "0", "--state", str(state)])
    before = (project / "moesim/cost/price.py").read_bytes()
    mutations.main()
    status = {row["key"].split(":", 2)[2]: row["status"] for row in map(json.loads, state.read_text().splitlines())}
    assert status == {
        "comparison n > 10 -> (n >= 10)": "survived",
        "constant 10 -> 11": "survived",
        "arithmetic 8 * n -> (8 / n)": "survived",
        "constant 8 -> 9": "survived",
        "arithmetic 9 * n -> (9 / n)": "caught",
        "constant 9 -> 10": "caught",
    }
    assert (project / "moesim/cost/price.py").read_bytes() == before
    printed = capsys.readouterr().out
    assert "40.0% of 5 that are not equivalent were caught" in printed
    assert "tests/cost/test_price.py::test_few" in printed

    drawn = mutations.draw(project, 9, 0, 0)
    assert not list(mutations.still_to_try(drawn, mutations.told(state), project))
    with (project / "tests/cost/test_price.py").open("a") as file:
        file.write("\n\ndef test_many():\n    assert price(20) == 160\n")
    again = [one.key.split(":", 2)[2] for one in mutations.still_to_try(drawn, mutations.told(state), project)]
    assert sorted(again) == sorted(key for key, word in status.items() if word == "survived")


def test_a_mutation_that_never_ends_is_caught(project, tmp_path, monkeypatch):
    (project / "moesim/cost/price.py").write_text("def price(n):\n    while n < 18:\n        n += 16\n    return n\n")
    monkeypatch.setattr(mutations, "SLACK_S", 3.0)
    monkeypatch.setattr(mutations, "TIMES_USUAL", 0.0)
    copies = mutations.Copies(project, tmp_path / "copies", 1)
    found = mutations_of("moesim/cost/price.py", (project / "moesim/cost/price.py").read_bytes())
    endless: Mutation = next(one for one in found if one.kind == "arithmetic")
    assert copies.judge(endless)["by"] == "time ran out"
