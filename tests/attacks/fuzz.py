"""Damage files of every format, give each to the command that reads it, and say what came of it.

``python -m tests.attacks.fuzz --cases 100 --seed 1 [--only NAME]`` prints refused, accepted and faults per format and
keeps the files of faults. A forked child reads one file after another by the command's own entry, within limits of
time and memory for each; where a file ends it, a new child goes on with the next. A fault is: an exit code that is
none of a refusal or a success, a traceback or a warning, more than 10 s of CPU, more than 512 MiB of memory, NaN in
what is printed, an escape sequence, or something left behind by a refusal.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.attacks.formats import FOLDERS, FORMATS, JOURNALS
from tests.attacks.mutations import mutated

MOST_CPU_S, MOST_MIB, MOST_WALL_S, MOST_CHARACTERS = 10, 512, 120, 500
# Accepted; bad input; the environment (a full file system, a name too long); a threshold that the run missed.
_CODES = (0, 2, 3, 4)
_NO_NUMBER = re.compile(r"[^\n]{0,60}(?<![\w\".'])-?(nan|NaN|Infinity|inf)(?![\w\"':])")
_BATCH = 50


@dataclass(frozen=True)
class Case:
    """A command line, what is to be made before, and the names in the folder that may be there after a refusal."""

    arguments: list[str]
    make: Callable[[], object] = lambda: None
    kept: frozenset[str] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Its exit code (negative: a signal), CPU seconds, growth of memory in MiB, what it printed and what it left.
    """

    code: int
    cpu_s: float
    most_mib: float
    out: str
    err: str
    left: tuple[str, ...] = ()

    @property
    def fault(self):
        """Why it is no clean refusal and no success; empty where it is one."""
        if self.cpu_s > MOST_CPU_S or self.code in (-signal.SIGALRM, -signal.SIGXCPU):
            return f"took {self.cpu_s:.0f} s"
        if self.code not in _CODES:
            return f"exit {self.code}: {self.err[-300:]}"
        if self.most_mib > MOST_MIB:
            return f"took {self.most_mib:.0f} MiB"
        if "Traceback" in self.err or "Warning" in self.err:
            return f"prints {self.err[-300:]}"
        if "\x1b" in self.out + self.err:
            return "an escape sequence"
        if found := _NO_NUMBER.search(self.out):
            return f"prints {found[0]}"
        if self.code == 2 and not 0 < max(map(len, self.err.splitlines()), default=0) <= MOST_CHARACTERS:
            return f"says {self.err[:700]!r}"
        if self.code == 2 and self.left:
            return f"leaves {', '.join(self.left)}"
        return ""


def run(arguments, folder):
    """Run one command line in a forked child."""
    return run_all([Case(arguments)], folder)[0]


def run_all(cases, folder):
    """Run command lines one after another in forked children; return their outcomes, in order."""
    told, outcomes = folder / "outcomes", []
    while len(outcomes) < len(cases):
        told.write_text("")
        before = len(outcomes)
        child = os.fork()
        if child == 0:
            _be_all(cases[before : before + _BATCH], folder)
        _, status, used = os.wait4(child, 0)
        outcomes += [Outcome(**json.loads(line)) for line in told.read_text().splitlines()]
        if status:
            said = [(folder / name).read_bytes().decode("utf-8", "replace") for name in ("stdout", "stderr")]
            cpu_s = used.ru_utime + used.ru_stime - sum(outcome.cpu_s for outcome in outcomes[before:])
            outcomes.append(Outcome(os.waitstatus_to_exitcode(status), cpu_s, used.ru_maxrss / 1024, *said))
    told.unlink()
    return outcomes


def _be_all(cases, folder):
    """Be the commands, one after another; never returns. Ends early behind one that took much memory."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("always")
        sys.settrace(None)  # what measures coverage would count as the command's time, and is lost with the child
        for stream in (1, 2):
            os.dup2(os.open(folder / ("stdout", "stderr")[stream - 1], os.O_RDWR | os.O_CREAT), stream)
        for case in cases:
            outcome = _be(case, folder)
            with (folder / "outcomes").open("a") as told:
                told.write(json.dumps(asdict(outcome)) + "\n")
            if outcome.most_mib > MOST_MIB / 4:
                break
    finally:
        os._exit(0 if sys.exc_info()[0] is None else 99)


def _be(case, folder):
    """Be a command."""
    from moesim.cli.app import main

    for stream in (1, 2):
        os.ftruncate(stream, 0)
        os.lseek(stream, 0, os.SEEK_SET)
    case.make()
    sys.stdout, sys.stderr = (open(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))  # noqa: SIM115
    sys.argv = ["moesim", *case.arguments]
    cpu_s, mib = _used()
    signal.alarm(MOST_WALL_S)
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + MOST_CPU_S + 5, resource.RLIM_INFINITY))
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    sys.stdout.flush()
    sys.stderr.flush()
    signal.alarm(0)
    cpu_s, mib = (after - before for before, after in zip((cpu_s, mib), _used(), strict=True))
    left = sorted(path.name for path in folder.iterdir() if path.name not in case.kept) if case.kept else []
    for name in left:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    said = [(folder / name).read_bytes().decode("utf-8", "replace") for name in ("stdout", "stderr")]
    return Outcome(code, cpu_s, mib, *said, tuple(left))


def _used():
    """CPU seconds and most MiB of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used), max(each.ru_maxrss for each in used) / 1024


class Bench:
    """A format in a folder of its own, ready to be given files."""

    def __init__(self, form, folder):
        self.form, self.folder = form, folder
        folder.mkdir(parents=True)
        form.beside(folder)
        self.samples = form.samples()
        self.path = folder / form.file
        self.kept = frozenset(path.name for path in folder.iterdir()) | {
            Path(form.file).parts[0],
            "stdout",
            "stderr",
            "outcomes",
        }
        put = {"FILE": str(self.path), "HERE": str(folder)}
        self.arguments = [re.sub("FILE|HERE", lambda found: put[found[0]], word) for word in form.command]

    def give(self, *contents):
        """Give a file with each of these contents to the command; return the outcomes."""
        return run_all([Case(self.arguments, lambda c=c: self._make(c), self.kept) for c in contents], self.folder)

    def _make(self, content):
        if self.path.parent != self.folder:
            self.form.beside(self.folder)
        self.path.write_bytes(content)

    def mutated(self, seed):
        """Return the damaged file of a seed."""
        rng = random.Random(f"{self.form.name} {seed}")
        return mutated(rng.choice(self.samples), rng, self.samples)


def warm_up():
    """Import and compile once what all children use."""
    import pyarrow.parquet  # noqa: F401
    import scipy  # noqa: F401

    from moesim import load_scenario, simulate
    from moesim.cli.app import program

    os.environ |= {"MOESIM_INTERPRET": "0", "MOESIM_BACKGROUND": "0"}
    program()  # every verb is loaded
    simulate(load_scenario("quickstart", ["workload.tokens_per_rank=4"]))


def main():
    """Run the script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", default="", help="formats whose name this regular expression finds")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "moesim-fuzz")
    options = parser.parse_args()
    warm_up()
    total = Counter()
    print(f"{'format':28} refused accepted faults  most CPU s  most MiB")
    with tempfile.TemporaryDirectory() as base:
        for number, form in enumerate((*FORMATS, *FOLDERS, *JOURNALS)):
            if re.search(options.only, form.name):
                total += _fuzz(Bench(form, Path(base) / str(number)), options)
    print(f"{'all':28} {total['refused']:7} {total['accepted']:8} {total['fault']:6}")
    sys.exit(1 if total["fault"] else 0)


def _fuzz(bench, options):
    """Give damaged files of one format; print and count what came of it."""
    form, found, cpu_s, most_mib = bench.form, Counter(), 0.0, 0.0
    for outcome in bench.give(*bench.samples):
        if outcome.code != 0:
            print(f"  {form.name}: a whole sample is refused: {outcome.code} {outcome.err}")
    for first in range(0, options.cases, _BATCH):
        seeds = [f"{options.seed}.{case}" for case in range(first, min(first + _BATCH, options.cases))]
        contents = [bench.mutated(seed) for seed in seeds]
        for seed, content, outcome in zip(seeds, contents, bench.give(*contents), strict=True):
            cpu_s, most_mib = max(cpu_s, outcome.cpu_s), max(most_mib, outcome.most_mib)
            found["fault" if outcome.fault else "accepted" if outcome.code == 0 else "refused"] += 1
            if outcome.fault:
                kept = options.keep / f"{form.name.replace(' ', '-')}-{seed}-{Path(form.file).name}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(content)
                print(f"  {form.name} {seed}: {' '.join(outcome.fault.split())[:400]}")
    print(
        f"{form.name:28} {found['refused']:7} {found['accepted']:8} {found['fault']:6} {cpu_s:11.1f} {most_mib:9.0f}",
        flush=True,
    )
    return found


if __name__ == "__main__":
    main()
