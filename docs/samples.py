"""Run the commands of a documentation page and hold what it prints against them; write the numbers anew.

    python docs/samples.py docs/questions.md            # says what the page shows and the program does not print
    python docs/samples.py docs/questions.md --write    # numbers of the page as they are printed now

The commands of a page run in order, in an empty folder with the files of docs/examples. A shown line has to be printed,
in order, whatever its numbers; ``...`` alone stands for any lines, at the end of a line for the rest of it. So a page
stays true when constants change, and is refused when words or names do.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A number, the unit behind it if there is one (an interval writes it once), and the blanks that set it in its column.
NUMBER = re.compile(
    r"\s*(?<![\w.-])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?\s?(?:(?:[num]?s|µs|[kMGT]?B(?:/s)?|%)(?!\w))?\s*", re.ASCII
)
NOT_RUN = (
    "python3.11 -m venv",
    "moesim record",
    "moesim run quickstart -q -o workload.recording.name=my-v3.npz",
    "moesim profile",
    "moesim kernels import h100.csv",
)
PROGRAM = "import sys; from moesim.cli import main; sys.argv[0] = 'moesim'; main() if __name__ == '__main__' else None"


@dataclass(frozen=True)
class Sample:
    """A command of a page, and the lines that the page shows of what it prints."""

    command: str
    shown: tuple[str, ...]

    @property
    def runs(self) -> bool:
        """Whether it can be run anywhere: without a GPU, PyTorch or files that are not part of the project."""
        return not self.command.startswith(NOT_RUN)


def samples(page: str) -> Iterator[Sample]:
    """Yield the commands of a page's console blocks, in order."""
    for block in FENCE.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            length = 1
            while lines[length - 1].endswith("\\") or "\n".join(lines[:length]).count('"') % 2:
                length += 1
            yield Sample("\n".join(lines[:length]), tuple(lines[length:]))


def pattern(line: str) -> re.Pattern[str]:
    """Return what a printed line has to match: the shown one with any numbers, up to its ``...``."""
    parts = re.split(r"\s?\.\.\.\s?", line.removesuffix("...").rstrip())
    spelt = []
    for part in parts:
        words = [re.sub(r"(?:\\?\s)+", r"\\s+", re.escape(word)) for word in NUMBER.split(part)]
        spelt.append(NUMBER.pattern.join(words))
    return re.compile(".*?".join(spelt) + ("" if line.endswith("...") else r"\s*$"))


def printed(command: str, folder: Path) -> tuple[int, list[str]]:
    """Run a command in a folder; return its exit code and the lines of both its streams."""
    program = folder / ".bin" / "moesim"
    if not program.exists():
        program.parent.mkdir()
        (program.parent / "start.py").write_text(PROGRAM)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program.parent}/start.py" "$@"\n')
        program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    env.pop("COLUMNS", None)
    done = subprocess.run(  # noqa: S603 - the commands of our own pages
        ["/bin/bash", "-c", command], cwd=folder, env=env, text=True, capture_output=True
    )
    return done.returncode, (done.stderr + done.stdout).splitlines()


def found(shown: tuple[str, ...], lines: list[str]) -> tuple[list[str], list[str]]:
    """Return the shown lines with the numbers that were printed, and those that were not printed."""
    fresh, missing, at = [], [], 0
    for line in shown:
        if line.strip() in ("", "..."):
            fresh.append(line)
            continue
        wanted = pattern(line)
        hit = next((i for i in range(at, len(lines)) if wanted.match(lines[i])), None)
        if hit is None:
            missing.append(line)
            fresh.append(line)
            continue
        at = hit + 1
        inner = "..." in line.removesuffix("...")
        matched = wanted.match(lines[hit])
        text = line if inner or matched is None else matched[0].rstrip()
        fresh.append(text + (" ..." if line.endswith("...") and not inner else ""))
    return fresh, missing


def check(page: Path, run: Callable[[str, Path], tuple[int, list[str]]] = printed) -> tuple[str, list[str]]:
    """Run a page, by ``run``; return it with fresh numbers, and what it shows and does not print or what failed."""
    text, wrong = page.read_text(encoding="utf-8"), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copytree(ROOT / "docs/examples", folder, dirs_exist_ok=True)
        for sample in list(samples(text)):
            if not sample.runs:
                continue
            code, lines = run(sample.command, folder)
            fresh, missing = found(sample.shown, lines)
            if code not in (0, 2, 4) or (code and not sample.shown):
                wrong.append(f"$ {sample.command}\n  ends with {code}: {lines[-1] if lines else ''}")
            wrong += [f"$ {sample.command}\n  does not print: {line}" for line in missing]
            before, after = ("\n".join((f"$ {sample.command}", *each)) for each in (sample.shown, fresh))
            text = text.replace(before, after, 1)
    return text, wrong


def main() -> None:
    """Check the pages named on the command line."""
    failed = False
    for name in [argument for argument in sys.argv[1:] if argument != "--write"]:
        text, wrong = check(Path(name))
        failed |= bool(wrong)
        print(*wrong, sep="\n")
        if "--write" in sys.argv:
            Path(name).write_text(text, encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()
