"""Damaged files of every format: refused in plain words or read, and nothing else."""

import os
import sys

import pytest

from tests.attacks.formats import FOLDERS, FORMATS, JOURNALS
from tests.attacks.fuzz import Bench, warm_up

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")
NAMES = [form.name for form in FORMATS]
QUICK = [form for form in FORMATS if form.name != "snapshots"][::3]  # those take seconds to fit
ALL = (*FORMATS, *FOLDERS, *JOURNALS)


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    warm_up()
    made = {}

    def bench(form):
        if form.name not in made:
            made[form.name] = Bench(form, tmp_path_factory.mktemp("fuzz") / "files")
        return made[form.name]

    return bench


def _whole(form, benches, samples):
    bench = benches(form)
    for outcome in bench.give(*bench.samples[:samples]):
        assert outcome.code == 0, outcome.err
        assert not outcome.fault


@pytest.mark.jit
@pytest.mark.parametrize("form", QUICK, ids=[form.name for form in QUICK])
def test_whole_files_are_read(form, benches):
    _whole(form, benches, 1)


@pytest.mark.slow
@pytest.mark.parametrize("form", ALL, ids=[form.name for form in ALL])
def test_all_whole_files_are_read(form, benches):
    _whole(form, benches, None)


def _damaged(form, benches, cases):
    bench, at_once = benches(form), 50
    for first in range(0, cases, at_once):
        seeds = range(first, min(first + at_once, cases))
        for seed, outcome in zip(seeds, bench.give(*(bench.mutated(seed) for seed in seeds)), strict=True):
            assert not outcome.fault, f"seed {seed}: {outcome.fault}"


@pytest.mark.jit
@pytest.mark.parametrize("form", FOLDERS[::5], ids=[form.name for form in FOLDERS[::5]])
def test_damaged_result_folders_are_refused_in_plain_words_or_read(form, benches):
    _damaged(form, benches, 1)


@pytest.mark.jit
@pytest.mark.parametrize("form", FORMATS, ids=NAMES)
def test_damaged_files_are_refused_in_plain_words_or_read(form, benches):
    _damaged(form, benches, 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("form", ALL, ids=[form.name for form in ALL])
def test_two_thousand_damaged_files_of_a_format_are_refused_or_read(form, benches):
    _damaged(form, benches, 2000)
