"""How tight the tests are: small mistakes drawn from the package, and whether the tests of their own folder notice.

``python -m benchmarks.mutations --plain 140 --kernels 60 --seed 0 --state FILE`` takes hours, prints one line each and
goes on where it was stopped. A mutation changes one comparison, arithmetic operator, index or number in a copy of the
repository, and the tests of its package run there until one fails. Kernels run uncompiled, as plain Python. What
survives is a hole in the tests unless ``mutations_equivalent.txt`` says why no test could see it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from queue import SimpleQueue

from tests.kernel_cache import FOLDER, kernel_files, with_imported

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("mutations_equivalent.txt")
NEED_TORCH = ("record", "profile")
DRAWN = ("report",)
"""Where numbers are sizes, places and colours of drawings: constants are left as they are."""
TOP = "moesim"
"""Name of the modules that lie in no package."""
ELSEWHERE = {"layer": ("layer", "run"), "measure": ("measure", "run")}
"""Folders of the tests of a package, where that is not the one of its name."""
NOT_OF_TOP = ("test_docs.py", "test_benchmarks.py", "test_contract.py", "test_import_direction.py", "test_mutations.py")
LEFT_OUT = "not lab and not browser and not slow"
MOST_BYTES = 12 << 30
TEST_S, SLACK_S, TIMES_USUAL = 100, 60.0, 4.0
"""A mutation runs forever, and so is caught, where one test takes so long or all take so much longer than usual."""

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip
# Numbers that choose no result: of what these are told, and by these keywords.
_TALK = {"print", "announce", "cast", "TypeVar", "Field", "Argument", "Option"}
_TYPES = {"bool", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple", "type", "None"}
_KEYWORDS = {"strict", "exist_ok", "parents", "missing_ok", "ignore_errors", "copy", "stacklevel"}


@dataclass(frozen=True)
class Mutation:
    """``text[start:end]`` (bytes) of a file becomes ``new``; ``key`` names it in the list of equivalent ones."""

    file: str
    function: str
    kind: str
    start: int
    end: int
    new: str
    key: str

    @property
    def package(self) -> str:
        parts = Path(self.file).parts
        return parts[1] if len(parts) > 2 else TOP

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


class _Finder(ast.NodeVisitor):
    """Collects (function, kind, node, new text) of everything in a module that can be changed."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, ast.expr | ast.AugAssign, str]] = []
        self.scope: list[str] = []

    def add(self, kind: str, node: ast.expr | ast.AugAssign, new: str) -> None:
        self.found.append((".".join(self.scope) or "<module>", kind, node, new))

    def visit(self, node: ast.AST) -> None:
        skipped = ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom
        if not isinstance(node, skipped):
            super().visit(node)

    def _scoped(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        self.scope.append(node.name)
        if isinstance(node, ast.FunctionDef):
            for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)
        self.scope.pop()

    visit_FunctionDef = visit_ClassDef = _scoped  # type: ignore[assignment] # neither decorators nor annotations

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        test = ast.unparse(node.test)
        if "TYPE_CHECKING" not in test and "__name__" not in test:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name not in _TALK:
            self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in _KEYWORDS:
            self.visit(node.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        ops = [_SWAPS[type(node.ops[0])](), *node.ops[1:]]
        self.add("comparison", node, f"({ast.unparse(ast.Compare(node.left, ops, node.comparators))})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        text = any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (node.left, node.right))
        if type(node.op) in _SWAPS and not text and not _is_type(node):
            other = _SWAPS[type(node.op)]()
            self.add("arithmetic", node, f"({ast.unparse(ast.BinOp(node.left, other, node.right))})")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in _SWAPS and not _is_text(node.value):
            self.add("arithmetic", node, ast.unparse(ast.AugAssign(node.target, _SWAPS[type(node.op)](), node.value)))
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if _is_type(node.value):
            return
        self.visit(node.value)
        index = node.slice
        if isinstance(index, ast.Tuple) and len(index.elts) == 2:
            first, second = map(ast.unparse, index.elts)
            if first != second:
                self.add("index", index, f"{second}, {first}")
        for one in index.elts if isinstance(index, ast.Tuple) else [index]:
            ends = [one.lower, one.upper] if isinstance(one, ast.Slice) else [one]
            for end in filter(None, ends):
                value = _whole_number(end)
                if value is not None:
                    self.add("index", end, str(value - 1 if value < 0 else value + 1))
                elif isinstance(end, ast.Name | ast.Attribute):
                    self.add("index", end, f"{ast.unparse(end)} + 1")
                else:
                    self.visit(end)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add("constant", node, str(not node.value))
        elif isinstance(node.value, int):
            self.add("constant", node, str(node.value + 1))
        elif isinstance(node.value, float):
            self.add("constant", node, repr(node.value * 1.5 if node.value else 1.0))


def _whole_number(node: ast.expr) -> int | None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if type(value) is int else None


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_type(node: ast.expr) -> bool:
    """Whether an expression is a type: ``NDArray[...]``, ``dict[...]``, ``A | None``."""
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.BitOr) and (_is_type(node.left) or _is_type(node.right))
    if isinstance(node, ast.Subscript):
        return _is_type(node.value)
    name = ast.unparse(node).rpartition(".")[2]
    return name in _TYPES or bool(re.match(r"[A-Z]\w*[a-z]", name))


def mutations_of(file: str, source: bytes) -> list[Mutation]:
    """Return everything in a module that can be changed, in order, each with a key of its own."""
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    finder = _Finder()
    finder.visit(ast.parse(source))
    made, met = [], Counter[str]()
    for function, kind, node, new in finder.found:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start, end = begins[node.lineno - 1] + node.col_offset, begins[node.end_lineno - 1] + node.end_col_offset
        old = " ".join(source[start:end].decode().split())
        key = f"{file}:{function}:{kind} {old} -> {new}"
        met[key] += 1
        made.append(
            Mutation(file, function, kind, start, end, new, key if met[key] == 1 else f"{key} (number {met[key]})")
        )
    return made


def draw(root: Path, plain: int, kernels: int, seed: int) -> list[Mutation]:
    """Draw mutations from plain and from kernel modules, spread over the packages by their lines of code.

    Within a package the kinds take turns. An edit or a move of a module changes little of what is drawn of others.
    """
    compiled = set(with_imported(root, kernel_files(root)))
    drawn: list[Mutation] = []
    for count, of_kernels in ((plain, False), (kernels, True)):
        lines, candidates = Counter[str](), dict[str, dict[str, list[Mutation]]]()
        for path in sorted((root / "moesim").rglob("*.py")):
            source, file = path.read_bytes(), path.relative_to(root).as_posix()
            found = [one for one in mutations_of(file, source) if one.kind != "constant" or one.package not in DRAWN]
            if (path in compiled) == of_kernels and found and found[0].package not in NEED_TORCH:
                lines[found[0].package] += source.count(b"\n")
                for one in found:
                    candidates.setdefault(one.package, {}).setdefault(one.kind, []).append(one)
        for package, share in _shared_out(count, lines).items():
            of_kind = candidates[package]
            kinds = sorted(of_kind, key=lambda kind: _lot(seed, f"{package} {of_kernels} {kind}"))
            in_order = [sorted(of_kind[kind], key=lambda one: _lot(seed, one.key.rpartition("/")[2])) for kind in kinds]
            drawn += [one for turn in zip_longest(*in_order) for one in turn if one is not None][:share]
    return drawn


def _lot(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def _shared_out(count: int, sizes: Counter[str]) -> dict[str, int]:
    """Share out in proportion to the sizes, what is left over to the largest remainders."""
    exact = {name: count * size / sizes.total() for name, size in sizes.items()}
    shares = {name: int(share) for name, share in exact.items()}
    left = sorted(exact, key=lambda name: (shares[name] - exact[name], name))[: count - sum(shares.values())]
    return {name: shares[name] + (name in left) for name in sorted(exact)}


def tests_of(root: Path, package: str, file: str) -> list[str]:
    """Test files of a package, those that import the module first."""
    tests = root / "tests"
    if package == TOP:
        paths = [path for path in sorted(tests.glob("test_*.py")) if path.name not in NOT_OF_TOP]
    else:
        paths = [
            path for name in ELSEWHERE.get(package, (package,)) for path in sorted((tests / name).glob("test_*.py"))
        ]
    module = file.removesuffix(".py").replace("/", ".")
    near = rf"\b{re.escape(module)}\b|^from {re.escape(module.rpartition('.')[0])} import .*\b{Path(file).stem}\b"
    order = sorted(paths, key=lambda path: not re.search(near, path.read_text("utf-8"), re.MULTILINE))
    return [path.relative_to(root).as_posix() for path in order]


def equivalent(path: Path = EQUIVALENT) -> dict[str, str]:
    """Read the mutations that change no result: the key on a line, the reason indented below."""
    reasons: dict[str, str] = {}
    key = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("    "):
            reasons[key] = f"{reasons[key]} {line.strip()}".strip()
        elif line.strip() and not line.startswith("#"):
            key = line.rstrip()
            reasons[key] = ""
    without = [key for key, reason in reasons.items() if not reason]
    assert not without, f"no reason in {path}: {without[0]}"
    return reasons


class Copies:
    """Copies of the repository, one per job, in which mutations are tried."""

    def __init__(self, root: Path, folder: Path, jobs: int) -> None:
        self.root, self.compiled = root, set(with_imported(root, kernel_files(root)))
        self.free: SimpleQueue[Path] = SimpleQueue()
        self.usual: dict[tuple[str, bool], float] = {}
        self.timing = threading.Lock()
        made, hidden = shutil.ignore_patterns("*.nb?", "__pycache__"), {"results", FOLDER}
        hidden |= {path.name for path in root.glob(".*") if path.name != ".ci"}

        def left_out(of: str, names: list[str]) -> set[str]:
            return made(of, names) | (hidden & set(names) if Path(of) == root else set())

        beside = root.parent / "shared"
        if beside.is_dir():  # published rows that some tests read where they are there
            (folder / "shared").symlink_to(beside)
        for job in range(jobs):
            shutil.copytree(root, folder / str(job), ignore=left_out, symlinks=True)
            self.free.put(folder / str(job))

    def judge(self, mutation: Mutation) -> dict[str, object]:
        """Try one: what became of it, the test that failed, and the seconds it took."""
        copy = self.free.get()
        try:
            plain = self.root / mutation.file not in self.compiled
            limit = TIMES_USUAL * self._usual(copy, mutation, plain) + SLACK_S
            path = copy / mutation.file
            kept, was = path.read_bytes(), path.stat()
            try:
                path.write_bytes(mutation.applied(kept))
                # Bytecode is told apart by size and whole seconds.
                os.utime(path, (was.st_atime, was.st_mtime + 1000 + mutation.start))
                begin = time.perf_counter()
                code, by = run_tests(copy, tests_of(self.root, mutation.package, mutation.file), plain, limit)
                seconds = time.perf_counter() - begin
            finally:
                path.write_bytes(kept)
                os.utime(path, (was.st_atime, was.st_mtime))
            status = "survived" if code == 0 else "caught"
            tests = state_of_tests(copy, mutation.package)
            return {"key": mutation.key, "status": status, "by": by, "seconds": round(seconds, 1), "tests": tests}
        finally:
            self.free.put(copy)

    def _usual(self, copy: Path, mutation: Mutation, plain: bool) -> float:
        """Seconds of the tests without a mutation, which must pass; kernels are compiled on the way."""
        with self.timing:
            if (mutation.package, plain) not in self.usual:
                begin = time.perf_counter()
                code, by = run_tests(copy, tests_of(self.root, mutation.package, mutation.file), plain, None)
                assert code == 0, f"without a mutation the tests of {mutation.package} end with {code}: {by}"
                self.usual[mutation.package, plain] = time.perf_counter() - begin
            return self.usual[mutation.package, plain]


def run_tests(copy: Path, files: Sequence[str], plain: bool, limit: float | None) -> tuple[int | None, str]:
    """Run tests until one fails: pytest's exit code, None past the limit, and the name of the test that failed."""
    environment = os.environ | {"PYTHONPATH": str(copy)} | ({} if plain else {"NUMBA_DISABLE_JIT": "1"})
    marks = LEFT_OUT if plain else f"{LEFT_OUT} and not jit"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=line", "-p", "no:cacheprovider"]
    command += ["-p", "benchmarks.mutations", f"--timeout={TEST_S}", "-m", marks, *files]
    process = subprocess.Popen(
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output = process.communicate(timeout=limit)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        return None, "time ran out"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return process.returncode, failed[1] if failed else output[-200:] if process.returncode else ""


def pytest_configure() -> None:
    """Make hypothesis draw the same examples each time and not search for the smallest that fails; bound the memory."""
    import resource

    from hypothesis import Phase, settings

    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))

    settings.register_profile(
        "mutations", derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate]
    )
    settings.load_profile("mutations")


def state_of_tests(root: Path, package: str) -> str:
    """Tell whether tests have changed since a mutation survived them."""
    digest = hashlib.sha256()
    for file in sorted(tests_of(root, package, "")):
        digest.update((root / file).read_bytes())
    return digest.hexdigest()[:12]


def told(state: Path) -> dict[str, dict[str, object]]:
    """Read what is known of mutations, the last word on each."""
    lines = state.read_text("utf-8").splitlines() if state.exists() else []
    return {str(row["key"]): row for row in map(json.loads, lines)}


def still_to_try(drawn: Sequence[Mutation], known: dict[str, dict[str, object]], root: Path) -> Iterator[Mutation]:
    """Those not tried yet, and those that survived tests which have changed since."""
    now = {package: state_of_tests(root, package) for package in {one.package for one in drawn}}
    for one in drawn:
        row = known.get(one.key)
        if row is None or (row["status"] == "survived" and row["tests"] != now[one.package]):
            yield one


def summary(drawn: Sequence[Mutation], known: dict[str, dict[str, object]], reasons: dict[str, str]) -> str:
    """Tell how many of each package were caught, survived or are equivalent, and which survived."""
    counts: dict[str, Counter[str]] = {}
    survivors = []
    for one in drawn:
        row = known.get(one.key)
        outcome = "not tried" if row is None else str(row["status"])
        if outcome == "survived":
            outcome = "equivalent" if one.key in reasons else outcome
        elif outcome == "caught" and one.key in reasons:
            survivors.append(f"  listed as equivalent, and caught by {row and row['by']}: {one.key}")
        if outcome == "survived":
            survivors.append(f"  {one.key}")
        counts.setdefault(one.package, Counter())[outcome] += 1
    outcomes = ("caught", "survived", "equivalent", "not tried")
    rows = [f"{'package':12}" + "".join(f"{name:>12}" for name in outcomes)]
    total = sum(counts.values(), Counter())
    rows += [
        f"{name:12}" + "".join(f"{count[one]:12}" for one in outcomes)
        for name, count in [*sorted(counts.items()), ("all", total)]
    ]
    tried = total["caught"] + total["survived"]
    if tried:
        rows.append(f"{total['caught'] / tried:.1%} of {tried} that are not equivalent were caught")
    return "\n".join([*rows, *(["survived:", *survivors] if survivors else [])])


def main() -> None:
    """Draw, try what is left to try, and sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", type=int, default=140, help="mutations of modules without kernels")
    parser.add_argument("--kernels", type=int, default=60, help="mutations of modules with kernels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, default=Path("mutations.jsonl"), help="what is known already, JSON lines")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--package", action="append", help="try those of this package only; repeatable")
    parser.add_argument("--list", action="store_true", help="print what is drawn and end")
    options = parser.parse_args()
    drawn = draw(ROOT, options.plain, options.kernels, options.seed)
    if options.package:
        drawn = [one for one in drawn if one.package in options.package]
    if options.list:
        print(*(one.key for one in drawn), sep="\n")
        return
    reasons = equivalent()
    left = list(still_to_try(drawn, told(options.state), ROOT))
    if left:
        with (
            tempfile.TemporaryDirectory(prefix="moesim-mutations-") as folder,
            ThreadPoolExecutor(options.jobs) as pool,
        ):
            copies = Copies(ROOT, Path(folder), options.jobs)
            for one, row in zip(left, pool.map(copies.judge, left), strict=True):
                with options.state.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{row['status']:9}{row['seconds']:7.1f} s  {one.key}  {row['by']}", flush=True)
    print(summary(drawn, told(options.state), reasons))


if __name__ == "__main__":
    main()
