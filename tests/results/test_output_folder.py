"""Output folders: nobody's files are lost, one process at a time has one, and what is refused is refused at once."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from moesim.errors import ResourceError
from moesim.output_folder import RESULT, SWEEP, VARIANTS, check_ours, folder_in_one_piece, held
from tests.run.small import run


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "run"
    run().save(folder, {"report.html": b"<p>", "figures/load.svg": b"<svg/>", "more.txt": b"of ours too"})
    return folder


@pytest.fixture
def own(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "own")
    return tmp_path / "own"


def refused(target, *said, kinds=(RESULT, VARIANTS)):
    with pytest.raises(ResourceError) as caught:
        check_ours(target, *kinds)
    line = str(caught.value)
    assert "\n" not in line and str(target) in line
    for word in said:
        assert word in line


def test_a_result_as_it_was_written_is_ours_with_all_that_came_with_it(own):
    check_ours(own, RESULT)
    with folder_in_one_piece(own) as staging:
        run().write(staging)
    assert not (own / "more.txt").exists()


def test_a_folder_in_which_a_kill_left_nothing_but_unfinished_files_is_ours(tmp_path):
    (tmp_path / ".summary.json.moesim-x1").write_text("{")
    check_ours(tmp_path, RESULT)
    (tmp_path / ".profile").write_text("mine")
    refused(tmp_path, ".profile", kinds=(RESULT,))


FOREIGN = {
    "a note": lambda folder: (folder / "notes.txt").write_text("mine"),
    "a hidden file": lambda folder: (folder / ".git").write_text("mine"),
    "a folder": lambda folder: (folder / "chapters").mkdir(),
    "a file in a folder of ours": lambda folder: (folder / "figures/photo.png").write_bytes(b"\x89PNG mine"),
    "a page by somebody else": lambda folder: (folder / "figures/mine.svg").write_text("<svg/>"),
    "a table by somebody else": lambda folder: (folder / "mine.parquet").write_bytes(b"PAR1 mine PAR1"),
    "a JSON file by somebody else": lambda folder: (folder / "mine.json").write_text("{}"),
    "a link to a file": lambda folder: (folder / "other.json").symlink_to(folder / "summary.json"),
    "a link to a folder": lambda folder: (folder / "linked").symlink_to(folder.parent),
    "a link to nothing": lambda folder: (folder / "figures/load.png").symlink_to("nowhere"),
}
TOUCHED = ("scenario.resolved.yaml", "summary.json", "notes.json", "more.txt", "trace.json.gz", "figures/load.svg")


@pytest.mark.parametrize("what", FOREIGN)
def test_whatever_else_is_in_a_result_is_somebody_elses_and_named(own, what):
    before = {path.name for path in own.rglob("*")}
    FOREIGN[what](own)
    (name,) = {path.name for path in own.rglob("*")} - before
    refused(own, name)


@pytest.mark.parametrize("name", TOUCHED)
def test_a_file_of_ours_that_somebody_has_edited_is_theirs(own, name):
    (own / name).write_bytes((own / name).read_bytes() + b"\n# mine")
    refused(own, name)


def test_files_called_as_ours_do_not_make_a_folder_ours(tmp_path):
    for name in ("scenario.resolved.yaml", "summary.json", "provenance.json", "report.html", "trace.json.gz"):
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        refused(folder, name)
        (folder / "thesis.tex").write_text("mine")
        refused(folder)
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "report.html").write_text('<!doctype html><meta name="generator" content="moesim">')
    refused(pages, "report.html")  # a page that somebody has kept


def test_the_folder_of_variants_is_ours_with_the_results_below_it(own, tmp_path):
    both = tmp_path / "both"
    for name in ("one", "two"):
        shutil.copytree(own, both / name)
    (both / "variants.json").write_text(json.dumps({"schema": "2", "variants": ["one", "two"]}))
    check_ours(both, RESULT, VARIANTS)
    (both / "two/thesis.tex").write_text("mine")
    refused(both, "two/thesis.tex", kinds=(VARIANTS,))
    (both / "two/thesis.tex").unlink()
    shutil.copytree(own, both / "three")
    refused(both, "three", kinds=(VARIANTS,))


def test_a_sweep_is_no_place_for_a_run_and_a_run_none_for_a_sweep(own, tmp_path):
    refused(own, kinds=(SWEEP,))
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/journal.sqlite").write_bytes(b"SQLite format 3")
    check_ours(tmp_path / "sweep", SWEEP)
    refused(tmp_path / "sweep", "journal.sqlite")
    (tmp_path / "sweep/thesis.tex").write_text("mine")
    refused(tmp_path / "sweep", "thesis.tex", kinds=(SWEEP,))


def test_a_place_is_refused_before_the_work_begins(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "file").write_text("mine")
    for target in ("../mine", "../link", "../file", ".", "..", "../file/below", "/proc/none/below"):
        with pytest.raises(ResourceError), folder_in_one_piece(target):
            raise AssertionError("the work has begun")
    assert (tmp_path / "mine/thesis.tex").read_text() == (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "here", "link", "mine"]


def test_a_link_to_a_result_stays_and_the_result_behind_it_is_replaced(own, tmp_path):
    (tmp_path / "latest").symlink_to("own")
    with folder_in_one_piece(tmp_path / "latest") as staging:
        run().write(staging)
    assert (tmp_path / "latest").is_symlink() and not (own / "more.txt").exists() and (own / "summary.json").exists()


def test_what_appears_while_the_work_goes_on_is_kept(tmp_path):
    with pytest.raises(ResourceError, match=r"thesis\.tex"), folder_in_one_piece(tmp_path / "out") as staging:
        run().write(staging)
        (tmp_path / "out").mkdir()
        (tmp_path / "out/thesis.tex").write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out/thesis.tex").exists()


def test_folders_above_that_were_made_for_nothing_are_gone_again(tmp_path):
    with pytest.raises(KeyboardInterrupt), folder_in_one_piece(tmp_path / "a/b/c"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_between_the_two_renames_left_is_put_right(own, tmp_path):
    os.replace(own, tmp_path / ".own.moesim-old")
    (tmp_path / ".own.moesim-new").mkdir()
    with pytest.raises(KeyboardInterrupt), folder_in_one_piece(own):
        raise KeyboardInterrupt
    assert (own / "more.txt").exists() and [path.name for path in tmp_path.iterdir()] == ["own"]


HOLDER = """
import sys, time
from moesim.errors import ResourceError
from moesim.output_folder import folder_in_one_piece, waiting
if "wait" in sys.argv:
    waiting.set(lambda line: print(line, flush=True))
print("go", flush=True)
for number in map(str.strip, sys.stdin):
    began = time.monotonic()
    try:
        with folder_in_one_piece(sys.argv[1] + number) as staging:
            print("won", flush=True)
            (staging / "summary.json").write_text('{"schema": "2"}')
            sys.stdin.readline()
        print("done", flush=True)
    except ResourceError as error:
        print("lost", time.monotonic() - began, error, flush=True)
"""


@contextmanager
def holders(target, number, *options):
    """So many processes, each of which takes the folder ``target`` + a line for every line that it is given."""
    command = [sys.executable, "-c", HOLDER, str(target), *options]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    processes = [subprocess.Popen(command, **pipes) for _ in range(number)]
    try:
        assert all(process.stdout.readline() == "go\n" for process in processes)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def tell(process, line=""):
    process.stdin.write(f"{line}\n")


def race(processes, trial=""):
    """Let all begin at once: the one that has won, and what the longest of the others took until it had said so."""
    for process in processes:
        tell(process, trial)
    said = {process: process.stdout.readline() for process in processes}
    (winner,) = (process for process, line in said.items() if line == "won\n")
    lost = [line for process, line in said.items() if process is not winner]
    for line in lost:
        assert f"in use by process {winner.pid} on {socket.gethostname()}, started 20" in line and "--wait" in line
    return winner, max((float(line.split()[1]) for line in lost), default=0.0)


def end(process):
    tell(process)
    assert process.stdout.readline() == "done\n"


@pytest.mark.parametrize(("number", "trials"), [(2, 40), pytest.param(8, 200, marks=pytest.mark.slow)])
def test_of_several_runs_into_one_folder_exactly_one_wins_and_the_others_name_it(tmp_path, capsys, number, trials):
    longest, winners = [], set()
    with holders(tmp_path / "out", number) as processes:
        for trial in range(trials):
            # From 2 to all of them; a folder that was never there, or one that is replaced.
            winner, took = race(processes[: 2 + trial % (number - 1)], trial // 2)
            end(winner)
            longest.append(took)
            winners.add(winner.pid)
    assert min(longest) < 2 and (number == 2 or max(longest) < 2) and len(winners) > 1
    assert {path.name for path in tmp_path.iterdir()} == {f"out{trial // 2}" for trial in range(trials)}
    if number > 2:
        with capsys.disabled():
            print(f"\n{trials} trials of 2 to {number}: {len(winners)} won, refused after {max(longest):.2f} s at most")


def test_the_lock_of_a_process_that_was_killed_is_taken_over(tmp_path):
    with holders(tmp_path / "out", 2) as (killed, next_):
        race([killed])
        killed.kill()
        killed.communicate()
        assert sorted(path.name for path in tmp_path.iterdir()) == [".out.moesim-lock", ".out.moesim-new"]
        race([next_])
        end(next_)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_who_waits_says_so_once_and_has_the_folder_when_it_is_free(tmp_path):
    with holders(tmp_path / "out", 3, "wait") as (first, *others):
        race([first])
        for process in others:
            tell(process)
            assert process.stdout.readline().startswith(f"{tmp_path / 'out'} is in use by process {first.pid} on ")
        end(first)
        second, third = others
        while not select.select([second.stdout], [], [], 0.05)[0]:
            second, third = third, second
        assert second.stdout.readline() == "won\n"
        end(second)
        assert third.stdout.readline() == "won\n"
        third.send_signal(signal.SIGKILL)
    assert (tmp_path / "out/summary.json").exists()


def test_a_fork_of_the_process_that_has_a_folder_does_not_keep_it(tmp_path):
    """Workers of a driver that was killed may live on: a pool of Python's, forked while the sweep has its folder."""
    reading, writing = os.pipe()
    with held(tmp_path, tmp_path / ".lock"):
        fork = os.fork()
        if not fork:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        with held(tmp_path, tmp_path / ".lock"):
            pass
    finally:
        os.close(writing)
        os.waitpid(fork, 0)


def test_a_lock_that_cannot_be_had_is_told_from_one_that_is_held(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(ResourceError, match="No locks available"), folder_in_one_piece(tmp_path / "out"):
        pass
