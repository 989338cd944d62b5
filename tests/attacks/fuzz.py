"""Damage files of every format, give each to the command that reads it, and say what came of it.

``python -m tests.attacks.fuzz --cases 100 --seed 1 [--only NAME]`` prints refused, accepted and faults per format and
keeps the files of faults. Every case runs in a forked child, so that its time and memory are its own. A fault is: an
exit code that is none of a refusal or a success, a traceback or a warning, more than 10 s of CPU, more than 512 MiB
of memory, NaN in what is printed, an escape sequence, or a file written beside what was asked for.
"""

import argparse
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
from dataclasses import dataclass
from pathlib import Path

from tests.attacks.formats import FOLDERS, FORMATS, JOURNALS
from tests.attacks.mutations import mutated

MOST_CPU_S, MOST_MIB, MOST_WALL_S = 10, 512, 90
# Accepted; bad input; the environment (a full file system, a name too long); a threshold that the run missed.
_CODES = (0, 2, 3, 4)
_NO_NUMBER = re.compile(r"[^\n]{0,60}(?<![\w\".'])-?(nan|NaN|Infinity|inf)(?![\w\"'])")


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code (negative: a signal), CPU seconds, most memory in MiB, and what it printed."""

    code: int
    cpu_s: float
    most_mib: float
    out: str
    err: str

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
        if self.code == 2 and not 0 < max(map(len, self.err.splitlines()), default=0) <= 500 + 9:
            return f"says {self.err[:300]!r}"
        return ""


def run(arguments, folder):
    """Run the command line in a forked child."""
    out, err = folder / "stdout", folder / "stderr"
    child = os.fork()
    if child == 0:
        _be(arguments, out, err)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    said = [path.read_bytes().decode("utf-8", "replace") for path in (out, err)]
    return Outcome(code, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, *said)


def _be(arguments, out, err):
    """Become the command line; never returns."""
    code = 99
    try:
        signal.alarm(MOST_WALL_S)
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S + 5, MOST_CPU_S + 10))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for stream, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", encoding="utf-8", buffering=1) for stream in (1, 2))
        warnings.simplefilter("always")
        sys.argv = ["moesim", *arguments]
        from moesim.cli.app import main

        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class Bench:
    """A format in a folder of its own, ready to be given files."""

    def __init__(self, form, folder):
        self.form, self.folder = form, folder
        folder.mkdir(parents=True)
        form.beside(folder)
        self.samples = form.samples()
        self.kept = {path.name for path in folder.iterdir()} | {form.file, "stdout", "stderr"}

    def give(self, content):
        """Give a file with this content to the command."""
        path = self.folder / self.form.file
        if path.parent != self.folder:
            self.form.beside(self.folder)
        path.write_bytes(content)
        put = {"FILE": str(path), "HERE": str(self.folder)}
        outcome = run(
            [re.sub("FILE|HERE", lambda found: put[found[0]], word) for word in self.form.command], self.folder
        )
        for made in self.folder.iterdir():
            if made.name not in self.kept:
                shutil.rmtree(made) if made.is_dir() else made.unlink()
        return outcome

    def mutated(self, seed):
        """Return the damaged file of a seed."""
        rng = random.Random(f"{self.form.name} {seed}")
        return mutated(rng.choice(self.samples), rng, self.samples)


def warm_up():
    """Import and compile once what all children use."""
    import pyarrow.parquet  # noqa: F401
    import scipy  # noqa: F401

    import moesim.cli.app  # noqa: F401
    from moesim import load_scenario, simulate

    simulate(load_scenario("quickstart", ["workload.tokens_per_rank=4"]))


def main():
    """Run the script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "moesim-fuzz")
    options = parser.parse_args()
    os.environ |= {"MOESIM_INTERPRET": "0", "MOESIM_BACKGROUND": "0"}
    warm_up()
    total = Counter()
    print(f"{'format':20} refused accepted faults  most CPU s  most MiB")
    with tempfile.TemporaryDirectory() as base:
        for number, form in enumerate((*FORMATS, *FOLDERS, *JOURNALS)):
            if options.only not in form.name:
                continue
            bench = Bench(form, Path(base) / str(number))
            found, cpu, most = Counter(), 0.0, 0.0
            for sample in bench.samples:
                if (whole := bench.give(sample)).code != 0:
                    print(f"  {form.name}: a whole sample is refused: {whole.code} {whole.err}")
            for case in range(options.cases):
                seed = f"{options.seed}.{case}"
                content = bench.mutated(seed)
                outcome = bench.give(content)
                cpu, most = max(cpu, outcome.cpu_s), max(most, outcome.most_mib)
                kind = "fault" if outcome.fault else "accepted" if outcome.code == 0 else "refused"
                found[kind] += 1
                if outcome.fault:
                    kept = options.keep / f"{form.name.replace(' ', '-')}-{seed}-{Path(form.file).name}"
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_bytes(content)
                    print(f"  {form.name} {seed}: {' '.join(outcome.fault.split())[:400]}")
            total += found
            print(
                f"{form.name:20} {found['refused']:7} {found['accepted']:8} {found['fault']:6} {cpu:11.1f} {most:9.0f}",
                flush=True,
            )
    print(f"{'all':20} {total['refused']:7} {total['accepted']:8} {total['fault']:6}")
    sys.exit(1 if total["fault"] else 0)


if __name__ == "__main__":
    main()
