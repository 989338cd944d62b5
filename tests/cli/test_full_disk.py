"""A full disk of 8 MiB: exit 3 in one line, what was there stays whole, and once there is room the same command gives
the same bytes. Needs the right to mount (root).
"""

import os
import shutil
import subprocess

import pytest

from moesim.sweeps import _given
from tests.cli.conftest import STEP

PLACE = ("-o", "cluster.topology=h200-2x2-rail", "-o", "routing.groups=4")
FOLDERS = {
    "run": ("run", "small.yaml", "-q", "--no-report", "--out"),
    "sweep": ("sweep", "small.yaml", "-q", "-p", "seed=0..3", "--out"),
    "plan": ("plan", "step.yaml", "-q", "-p", "parallel.ep=8", "-p", "schedule.overlap=none,hooks", "--out"),
    "what-breaks": ("what-breaks", "small.yaml", "-q", *PLACE, "--out"),
    "balance": (
        "balance",
        "small.yaml",
        "--method",
        "v3",
        "--steps",
        "2",
        "--sequences",
        "2",
        "--length",
        "16",
        "--out",
    ),
}
FILES = {
    "report": ("report", "RUN", "--out"),
    "compare": ("compare", "RUN", "RUN", "--out"),
    "trace": ("trace", "RUN", "--out"),
    "place": ("place", "small.yaml", "-q", "--write", "json", "--out"),
    "topo show": ("topo", "show", "hgx-h800", "--draw"),
    "replay export": ("replay", "export", "RUN", "--out"),
}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk]).returncode:
        pytest.skip("needs the right to mount: root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def quickly(monkeypatch):
    """Compute in this process and draw no pages: what is on trial is where they are written."""
    for module in ("moesim.cli.sweep", "moesim.cli.plan", "moesim.cli.what_breaks"):
        monkeypatch.setattr(f"{module}.workers_for", lambda *_, **__: _given(None, 1))
    for name in ("report.render_sweep", "sweeps.report.render_sweep", "report.render_what_breaks"):
        monkeypatch.setattr(f"moesim.{name}", lambda *_, **__: PAGE)


PAGE = '<!doctype html><meta name="generator" content="moesim">' + "x" * 100_000


def fill(disk, free):
    """Leave so many bytes of it."""
    with (disk / "ballast").open("wb") as ballast:
        space = os.statvfs(disk)
        ballast.write(bytes(max(space.f_bavail * space.f_frsize - free, 0)))


def contents(place):
    """Of every file but what differs between equal runs, and the journal, whose table is beside it."""
    files = (path for path in sorted(place.rglob("*")) if path.is_file()) if place.is_dir() else (place,)
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in files
        if path.name not in ("provenance.json", ".lock") and "journal" not in path.name
    }


def remove(place):
    shutil.rmtree(place) if place.is_dir() else place.unlink()


def check(moesim, disk, command, place, levels):
    """Run with so much free room as part of what the result takes, with an old result there and without one."""
    assert moesim(*command, place).code == 0
    whole, room, ended = contents(place), os.statvfs(disk), []
    needed = (room.f_blocks - room.f_bavail) * room.f_frsize
    for level in range(2 * levels):
        old, free = level % 2, needed * (level // 2) // levels
        if not old:
            remove(place)
        fill(disk, free)
        done = moesim(*command, place)
        said = done.err.splitlines()
        assert (done.code, len(said)) in ((0, 0), (3, 1)) and str(disk) in (said or [str(disk)])[0], done
        if old or done.code == 0:
            assert contents(place) == whole, (free, done)
        (disk / "ballast").unlink()
        assert {path.name for path in disk.iterdir()} <= {place.name}
        assert done.code == 0 or moesim(*command, place).code == 0
        assert contents(place) == whole, (free, done)
        ended.append(done.code)
    assert ended[0] == 3
    return ended


def cases(verbs, often):
    """Two levels of some verbs in every change; all verbs, twelve levels, in full."""
    full = [pytest.mark.slow, pytest.mark.timeout(3600)]
    return [*((verb, 2) for verb in often), *(pytest.param(verb, 12, marks=full) for verb in verbs)]


@pytest.mark.jit
@pytest.mark.parametrize(("verb", "levels"), cases(FOLDERS, ("run", "sweep")))
def test_on_a_full_disk_a_folder_stays_as_it_was(moesim, here, small_disk, quickly, capsys, verb, levels):
    (here / "step.yaml").write_text(STEP)
    ended = check(moesim, small_disk, FOLDERS[verb], small_disk / "out", levels)
    with capsys.disabled():
        print(f"\n{verb}: {len(ended)} times, {ended.count(3)} exit 3")


@pytest.mark.jit
@pytest.mark.parametrize(("verb", "levels"), cases(FILES, ("trace", "topo show")))
def test_on_a_full_disk_a_file_stays_as_it_was(moesim, here, small_disk, run_folder, capsys, verb, levels):
    endings = {"topo show": "svg", "trace": "json", "place": "json", "replay export": "txt"}
    command = [run_folder if word == "RUN" else word for word in FILES[verb]]
    ended = check(moesim, small_disk, command, small_disk / f"out.{endings.get(verb, 'html')}", levels)
    with capsys.disabled():
        print(f"\n{verb}: {len(ended)} times, {ended.count(3)} exit 3")
