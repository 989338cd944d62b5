"""Sweeps over hosts of their own: network namespaces with a bridge between them, and no disk that they share.

The scheduler and the driver are on one host, a worker each on two others. A link drops and comes back, a host dies; the
table has the bytes of one process. Needs the right to make namespaces (root).
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from killed import HANGS_S
from small_sweep import SMALL_YAML

pytest.importorskip("distributed", reason="needs moesim[dask]")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
POINTS = 24
PREFIX = f"mo{os.getpid() % 10**6}"
DRIVER, *WORKERS = HOSTS = ("a", "b", "c")
SCHEDULER = "tcp://10.77.0.1:8786"


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def may_make_hosts():
    """Whether namespaces, links between them and mounts in them can be made here."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        return False
    name = f"{PREFIX}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    mounts = subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    if made:
        ip("netns", "del", name)
    return made and mounts


@pytest.fixture
def hosts():
    """Three namespaces with addresses 10.77.0.1 to .3 on a bridge in a fourth."""
    if not may_make_hosts():
        pytest.skip("needs the right to make network namespaces: root, and ip of iproute2")
    net = f"{PREFIX}net"
    ip("netns", "add", net)
    try:
        ip("-n", net, "link", "add", "bridge", "type", "bridge")
        ip("-n", net, "link", "set", "bridge", "up")
        for number, host in enumerate(HOSTS, 1):
            space = f"{PREFIX}{host}"
            ip("netns", "add", space)
            ip("-n", net, "link", "add", f"to-{host}", "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("-n", net, "link", "set", f"to-{host}", "master", "bridge", "up")
            ip("-n", space, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield net
    finally:
        for space in (net, *(f"{PREFIX}{host}" for host in HOSTS)):
            die(space)
            with suppress(subprocess.CalledProcessError):
                ip("netns", "del", space)


def die(space, number=signal.SIGKILL):
    """Send every process of a host a signal, by default the end of it, at once."""
    found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True).stdout.split()
    for process in map(int, found):
        with suppress(ProcessLookupError):
            os.kill(process, number)


def begin(host, log, timeout_s, *command, hidden=None):
    """Start a program on a host; where a folder is ``hidden``, empty there on a disk of its own, again and again."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": f"{timeout_s}s",
    }
    space = ["ip", "netns", "exec", f"{PREFIX}{host}"]
    if hidden is not None:
        again = f"mount -t tmpfs none '{hidden}' && while :; do \"$@\"; sleep 1; done"
        space += ["unshare", "-m", "sh", "-c", again, "sh"]
    with open(log, "ab") as lines:
        return subprocess.Popen([*space, sys.executable, "-m", *command], env=environment, stdout=lines, stderr=lines)


def done(out):
    """Points in the journal."""
    with suppress(sqlite3.Error):
        database = sqlite3.connect(f"file:{out / 'journal.sqlite'}?mode=ro", uri=True)
        try:
            return database.execute("SELECT count(*) FROM points").fetchone()[0]
        finally:
            database.close()
    return 0


def wait_until(holds, sweep):
    began = time.monotonic()
    while not holds():
        assert sweep.poll() is None and time.monotonic() - began < HANGS_S
        time.sleep(0.05)


def wait_for(points, out, sweep):
    wait_until(lambda: done(out) >= points, sweep)


def registered(log, host):
    """How often a worker of a host has joined."""
    return log.read_text().count(f"Register worker addr: tcp://10.77.0.{1 + HOSTS.index(host)}:")


@pytest.mark.parametrize(("down_s", "timeout_s", "joins"), [(20, 60, 1), (45, 20, 2)])
def test_over_links_that_drop_and_hosts_that_die_the_bytes_are_those_of_one_process(
    tmp_path, hosts, capsys, down_s, timeout_s, joins
):
    """A worker whose link is down for less than Dask's time-out goes on; after more it ends, and the next one joins."""
    disk, log = tmp_path / "disk", tmp_path / "log"
    disk.mkdir()
    (disk / "small.yaml").write_text(SMALL_YAML)
    sweep = ["moesim", "sweep", str(disk / "small.yaml"), "-p", f"seed=0..{POINTS - 1}", "-q"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    local = [sys.executable, "-m", *sweep, "--jobs", "1", "--out", str(tmp_path / "local")]
    subprocess.run(local, check=True, env=environment, capture_output=True)
    dashboard = ["--no-dashboard"]
    begin(DRIVER, log, timeout_s, "dask", "scheduler", "--host", "10.77.0.1", "--port", "8786", *dashboard)
    for number, host in enumerate(WORKERS, 2):
        options = ["--nthreads", "1", "--host", f"10.77.0.{number}", "--local-directory", str(tmp_path), *dashboard]
        begin(host, log, timeout_s, "dask", "worker", SCHEDULER, *options, hidden=disk)
    out = disk / "out"
    driver = begin(DRIVER, log, timeout_s, *sweep, "--dask", SCHEDULER, "--out", str(out))
    told = []
    wait_for(4, out, driver)
    ip("-n", hosts, "link", "set", "to-b", "down")
    began, before = time.monotonic(), done(out)
    wait_for(before + 3, out, driver)
    die(f"{PREFIX}c", signal.SIGSTOP)  # points are left over, however fast the machine
    time.sleep(max(down_s - (time.monotonic() - began), 0))
    told.append(f"link to b down for {time.monotonic() - began:.0f} s at point {before}, {done(out) - before} by c")
    ip("-n", hosts, "link", "set", "to-b", "up")
    wait_until(lambda: registered(log, "b") == joins, driver)
    die(f"{PREFIX}c")
    told.append(f"host c dead at point {done(out)}, {POINTS - done(out)} by b, which joined {joins} times")
    assert driver.wait(HANGS_S) == 0, log.read_text()[-2000:]
    same = (out / "points.parquet").read_bytes() == (tmp_path / "local/points.parquet").read_bytes()
    with capsys.disabled():
        print(f"\n{POINTS} points; {'; '.join(told)}; same bytes: {same}")
    assert same and registered(log, "b") == joins
