"""Damaged files of every format: refused in plain words or read, and nothing else."""

import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attacks.formats import FORMATS
from tests.attacks.fuzz import Bench, warm_up

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")
NAMES = [form.name for form in FORMATS]


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    warm_up()
    made = {}

    def bench(form):
        if form.name not in made:
            made[form.name] = Bench(form, tmp_path_factory.mktemp("fuzz") / "files")
        return made[form.name]

    return bench


@pytest.mark.jit
@pytest.mark.parametrize("form", FORMATS, ids=NAMES)
def test_whole_files_are_read(form, benches):
    bench = benches(form)
    for sample in bench.samples:
        outcome = bench.give(sample)
        if outcome.fault:  # a child that compiles keeps what it compiled
            outcome = bench.give(sample)
        assert outcome.code == 0, outcome.err
        assert not outcome.fault


def _damaged(form, benches, cases):
    bench = benches(form)

    @settings(
        max_examples=cases, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.integers(0, 2**32))
    def refused_or_read(seed):
        outcome = bench.give(bench.mutated(seed))
        assert not outcome.fault, f"seed {seed}: {outcome.fault}"

    refused_or_read()


@pytest.mark.jit
@pytest.mark.parametrize("form", FORMATS, ids=NAMES)
def test_damaged_files_are_refused_in_plain_words_or_read(form, benches):
    _damaged(form, benches, 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("form", FORMATS, ids=NAMES)
def test_two_thousand_damaged_files_of_a_format_are_refused_or_read(form, benches):
    _damaged(form, benches, 2000)
