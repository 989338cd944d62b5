"""The journal: points whole or not at all, one sweep per folder, one driver at a time."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from moesim.errors import InputError, ResourceError
from moesim.output_folder import held
from moesim.sweeps.journal import JOURNAL_FILE, Outcome, differences, open_journal

SWEEP = {"scenario": {"routing": {"top_k": 4}}, "sweep": {"axes": [{"seed": [0, 1]}]}, "moesim": "1"}


def test_what_was_written_is_read_back_in_the_order_of_the_points(tmp_path):
    outcomes = {
        3: Outcome("ok", None, {"layer_time_s": 0.1 + 0.2}),
        1: Outcome("failed", "why"),
        0: Outcome("impossible", "no"),
        2: Outcome("ok", None, {"layer_time_s": 1e-3}),
    }
    with open_journal(tmp_path) as journal:
        journal.begin(SWEEP)
        journal.add([(3, outcomes[3])])
        journal.add([(1, outcomes[1]), (0, outcomes[0]), (2, outcomes[2])])
    with open_journal(tmp_path) as journal:
        journal.begin(SWEEP)
        assert journal.done() == {0, 1, 2, 3}
        assert list(journal.outcomes()) == sorted(outcomes.items())
        assert journal.counts() == {"failed": 1, "impossible": 1, "ok": 2}
        journal.forget("failed")
        assert journal.done() == {0, 2, 3}
        assert journal.identity() == SWEEP


def test_a_changed_sweep_is_refused_with_what_differs(tmp_path):
    with open_journal(tmp_path) as journal:
        journal.begin(SWEEP)
    changed = {**SWEEP, "scenario": {"routing": {"top_k": 8}, "seed": 1}}
    with open_journal(tmp_path) as journal, pytest.raises(InputError) as refused:
        journal.begin(changed)
    assert "scenario.routing.top_k: 4 before, 8 now" in str(refused.value)
    assert "scenario.seed: nothing before, 1 now" in str(refused.value)
    assert "--out" in str(refused.value)


def test_differences_are_told_value_by_value():
    assert differences({"a": {"b": 1, "c": [1, 2]}}, {"a": {"b": 1, "c": [1, 3]}}) == ["a.c: [1, 2] before, [1, 3] now"]
    assert differences({"a": 1}, {"a": 1}) == []
    fits, longer = "x" * 58, "x" * 59  # between quotes: 60 and 61 characters
    assert differences(fits, longer) == [f': "{fits}" before, "{"x" * 56}... now']


def test_a_journal_of_another_schema_version_is_refused(tmp_path):
    with open_journal(tmp_path) as journal:
        journal.begin(SWEEP)
    database = sqlite3.connect(tmp_path / JOURNAL_FILE)
    with database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    database.close()
    with open_journal(tmp_path) as journal, pytest.raises(InputError, match="schema version 99"):
        journal.begin(SWEEP)


def test_what_is_no_journal_is_refused(tmp_path):
    (tmp_path / JOURNAL_FILE).write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="not an intact journal"), open_journal(tmp_path):
        pass
    (tmp_path / JOURNAL_FILE).unlink()
    database = sqlite3.connect(tmp_path / JOURNAL_FILE)
    with database:
        database.execute("CREATE TABLE others (x)")
    database.close()
    with open_journal(tmp_path) as journal, pytest.raises(InputError, match="no journal of a sweep"):
        journal.begin(SWEEP)


def test_a_cut_journal_is_refused_or_read_but_never_half_read(tmp_path):
    with open_journal(tmp_path) as journal:
        journal.begin(SWEEP)
        journal.add((point, Outcome("ok", None, {"layer_time_s": float(point)})) for point in range(200))
    whole = (tmp_path / JOURNAL_FILE).read_bytes()
    for length in range(100, len(whole), 4096 + 517):
        (tmp_path / JOURNAL_FILE).write_bytes(whole[:length])
        with pytest.raises((InputError, ResourceError)), open_journal(tmp_path) as journal:
            journal.begin(SWEEP)
            list(journal.outcomes())


def test_a_place_that_cannot_be_opened_is_the_environments_fault(tmp_path):
    (tmp_path / JOURNAL_FILE).mkdir()
    with pytest.raises(ResourceError), open_journal(tmp_path):
        pass


def test_points_of_one_addition_are_written_together_or_not_at_all(tmp_path):
    def broken():
        yield 0, Outcome("ok", None, {})
        raise KeyboardInterrupt

    with open_journal(tmp_path) as journal:
        journal.begin(SWEEP)
        with pytest.raises(KeyboardInterrupt):
            journal.add(broken())
        assert journal.done() == set()


HOLDER = """
import sys, time
from pathlib import Path
from moesim.output_folder import held
with held(Path(sys.argv[1]), Path(sys.argv[1], ".lock")):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_names_the_process_and_is_free_once_that_is_dead(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ResourceError, match=f"process {holder.pid} on ") as refused,
            held(tmp_path, tmp_path / ".lock"),
        ):
            pass
        assert refused.value.exit_code == 3
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with held(tmp_path, tmp_path / ".lock"):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_of_several_at_once_exactly_one_holds_the_folder(tmp_path):
    def try_it(_):
        try:
            with held(tmp_path, tmp_path / ".lock"):
                holders.append(1)
                barrier.wait()
                return True
        except ResourceError:
            barrier.wait()
            return False

    from threading import Barrier

    for _ in range(20):
        holders, barrier = [], Barrier(4)
        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(try_it, range(4))) == 1


@pytest.mark.parametrize("flips", [25, pytest.param(300, marks=pytest.mark.slow)])
def test_a_flipped_bit_never_becomes_another_number(tmp_path, flips):
    """A row that has rotted is run again, or the file is refused; after the points are run again all is as it was."""
    truth = {p: Outcome("ok", None, {"layer_time_s": 1.25e-5 * p, "bottleneck": "nic", "tokens": p}) for p in range(60)}
    truth[7] = Outcome("failed", "why")
    with open_journal(tmp_path) as journal:
        journal.begin(SWEEP)
        journal.add(truth.items())
    whole, rng, ends = (tmp_path / JOURNAL_FILE).read_bytes(), random.Random(flips), Counter()
    for _ in range(flips):
        rotten = bytearray(whole)
        bit = rng.randrange(8 * len(whole))
        rotten[bit // 8] ^= 1 << bit % 8
        for file in tmp_path.iterdir():
            file.unlink()
        (tmp_path / JOURNAL_FILE).write_bytes(rotten)
        try:
            with open_journal(tmp_path) as journal:
                journal.begin(SWEEP)
                done = journal.done()
                assert dict(journal.outcomes()) == {point: truth[point] for point in done}
                journal.add((point, truth[point]) for point in truth if point not in done)
                assert list(journal.outcomes()) == sorted(truth.items())
                ends["whole" if len(done) == len(truth) else "again"] += 1
        except (InputError, ResourceError):
            ends["refused"] += 1
    assert ends["again"] and sum(ends.values()) == flips


def test_the_numbers_of_a_point_come_back_in_one_order_whatever_order_they_were_given_in(tmp_path):
    with open_journal(tmp_path) as journal:
        journal.begin({"name": "small"})
        journal.add([(0, Outcome("ok", summary={"b": 1, "a": {"d": 2, "c": 3}}))])
        ((_, outcome),) = journal.outcomes()
    assert list(outcome.summary) == ["a", "b"] and list(outcome.summary["a"]) == ["c", "d"]


def test_a_number_that_is_none_is_not_written(tmp_path):
    with open_journal(tmp_path) as journal:
        journal.begin({"name": "small"})
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.add([(0, Outcome("ok", summary={"a": float("nan")}))])
        assert journal.done() == set()


def test_of_many_differences_twelve_are_told_and_the_others_counted(tmp_path):
    with open_journal(tmp_path) as journal:
        journal.begin({f"{i:02}": 0 for i in range(13)})
        with pytest.raises(InputError, match=r"00: 0 before, 1 now; .*11: 0 before, 1 now; and 1 more; give"):
            journal.begin({f"{i:02}": 1 for i in range(13)})


def test_an_intact_journal_that_is_opened_again_keeps_its_bytes(tmp_path):
    with open_journal(tmp_path) as journal:
        journal.begin(SWEEP)
        journal.add([(point, Outcome("ok", None, {"layer_time_s": 1e-3})) for point in (2, 0, 1)])
    before = (tmp_path / JOURNAL_FILE).read_bytes()
    with open_journal(tmp_path) as journal:
        journal.begin(SWEEP)
        assert journal.done() == {0, 1, 2}
    assert (tmp_path / JOURNAL_FILE).read_bytes() == before
