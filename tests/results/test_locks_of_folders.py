"""The lock of an output folder: who holds it is named, and what a killed process left there is in nobody's way."""

import fcntl
import os
import threading

import pytest

from moesim.errors import ResourceError
from moesim.output_folder import RESULT, check_ours, held


@pytest.mark.parametrize(
    ("said", "within_s", "named"),
    [('{"pid": 7, "host": "there", "started": "2026"}', 30, "process 7 on there, started 2026"),
     ("", 0.05, "another process")],
)  # fmt: skip
def test_a_holder_that_is_about_to_write_who_it_is_is_waited_for(tmp_path, monkeypatch, said, within_s, named):
    monkeypatch.setattr("moesim.output_folder._NAMED_S", within_s)
    with (tmp_path / "lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writing = threading.Timer(0.1, lambda: (tmp_path / "lock").write_text(said))
        writing.start()
        with pytest.raises(ResourceError, match=f"in use by {named}"), held(tmp_path / "out", tmp_path / "lock"):
            raise AssertionError
        writing.join()


def test_whoever_takes_over_a_lock_writes_its_own_name_alone(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text('{"pid": 7, "host": "there", "started": "2026"}')
    named = pytest.raises(ResourceError, match=f"in use by process {os.getpid()} on ")
    with held(tmp_path / "out", lock), named, held(tmp_path / "out", lock):
        raise AssertionError
    assert lock.exists()
    with held(tmp_path / "out", lock, passing=True):
        assert lock.exists()
    assert not lock.exists()


def test_a_folder_in_which_a_kill_left_nothing_but_unfinished_files_is_ours(tmp_path):
    (tmp_path / ".summary.json.moesim-x1").write_text("{")
    check_ours(tmp_path, RESULT)
    (tmp_path / ".profile").write_text("mine")
    with pytest.raises(ResourceError, match=r"it holds \.profile, not as moesim writes it"):
        check_ours(tmp_path, RESULT)
