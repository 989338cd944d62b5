"""Run a command of moesim once for each failing call, each in a fork of this process: ``failing_driver.py FOLDER ...``.

Prints a line of JSON for each: the call, the error, how the command ended, what it said, and whether the results are
whole. With LD_PRELOAD of failing_calls.so and FAIL_BELOW set to the folder.
"""

import contextlib
import ctypes
import errno
import hashlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

from moesim import sweeps
from moesim.cli import main
from moesim.sweeps import report, workers

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Points are run in this process, so no worker has to start; a page is not drawn, but written all the same.
workers.local_workers = lambda jobs: sweeps._given(None, jobs)
report.render_sweep = lambda data: '<!doctype html><meta name="generator" content="moesim">'
FAIL = ctypes.CDLL(None)


def digests(folder):
    """Of every file but what differs between equal runs, and the journal, whose table is beside it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("provenance.json", ".lock") and "journal" not in path.name
    }


def run(command, call=-1, error=0, from_then_on=0):
    """Run it in a fork; return its code, its lines on stderr and how many calls it made."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        said, code = io.StringIO(), -1
        sys.argv = ["moesim", *command]
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            FAIL.fail_at(ctypes.c_long(call), error, from_then_on)
            try:
                main()
            except SystemExit as left:
                code = left.code
        calls = FAIL.failed_calls()
        FAIL.fail_at(ctypes.c_long(-1), 0, 0)
        os.write(writing, json.dumps([code, said.getvalue().splitlines(), calls]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        found = json.loads(answer.read() or "[-1, [], 0]")
    os.waitpid(process, 0)
    return found


def each(folder, command, calls):
    out = folder / "out"
    code, said, made = run([*command, "--out", str(out)], call=0)
    assert code == 0, said
    whole = digests(out)
    keeps = command[0] == "run"  # a run replaces what is there, a sweep goes on
    print(json.dumps({"calls": made}), flush=True)
    for number, call in enumerate(range(1, made + 1)):
        if calls and call not in calls:
            continue
        error, from_then_on = ERRORS[number % 4], number // 4 % 2
        if not keeps:
            shutil.rmtree(out, ignore_errors=True)
        code, said, _ = run([*command, "--out", str(out)], call, error, from_then_on)
        left = digests(out) == whole if keeps else True
        hidden = sorted(path.name for path in folder.iterdir() if path.name != "out") if keeps else []
        again = run([*command, "--out", str(out)])[0] if not keeps or not left or number % 10 == 0 else 0
        after = sorted(path.name for path in folder.iterdir()) == ["out"]
        ended = {"call": call, "error": errno.errorcode[error], "code": code, "said": said}
        ended |= {"old": left, "hidden": hidden}
        print(json.dumps(ended | {"again": again, "same": digests(out) == whole and after}), flush=True)


if __name__ == "__main__":
    chosen = {int(call) for call in os.environ.get("FAIL_CALLS", "").split(",") if call}
    each(Path(sys.argv[1]), sys.argv[2:], chosen)
