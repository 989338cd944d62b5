"""The text that the small model reads: whatever every machine with Python already has, in domains kept apart.

============  =========================================================================================
python        source of the standard library, docstrings cut out
prose         language reference topics (``pydoc_data``) and the docstrings, English
unicode       character records made from ``unicodedata``: code point; name; category; ...
bytecode      disassembly of standard library modules: held out, never trained on
============  =========================================================================================

Training and evaluation text are disjoint by document (a source file, a reference topic, a block of 256 code
points): a document is for evaluation if a hash of its name says so. Everything is a function of the Python
version alone; nothing is fetched. Not modelled: the mix of a real corpus; every domain is drawn
equally often.
"""

import ast
import dis
import hashlib
import sysconfig
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DOMAINS = ("python", "prose", "unicode", "bytecode")
HELD_OUT = ("bytecode",)

EVALUATION_SHARE = 0.1
# Test suites and bundled third-party wheels are not on every machine, generated tables swamp the rest.
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "encodings",
                   "pydoc_data", "ensurepip", "__pycache__"}  # fmt: skip
MAX_SOURCE_BYTES = 200_000
MIN_DOCSTRING_BYTES = 80
# Names of these ranges are counted through, not written: thousands of lines that differ in a number.
COUNTED_NAMES = (
    "CJK ",
    "HANGUL SYLLABLE",
    "TANGUT ",
    "NUSHU ",
    "KHITAN ",
    "EGYPTIAN HIEROGLYPH",
    "VARIATION SEL",
)


@dataclass(frozen=True)
class Corpus:
    """Bytes per domain: ``train`` without the held-out domains, ``evaluation`` of all."""

    train: dict[str, NDArray[np.uint8]]
    evaluation: dict[str, NDArray[np.uint8]]

    def provenance(self) -> dict[str, Any]:
        """Return byte counts and SHA-256 of every domain's two parts."""
        return {
            f"{part}/{name}": {"bytes": int(data.size), "sha256": hashlib.sha256(data.tobytes()).hexdigest()}
            for part, texts in (("train", self.train), ("evaluation", self.evaluation))
            for name, data in texts.items()
        }


@dataclass(frozen=True)
class EvaluationText:
    """Sequences, domains in turn: ``tokens`` uint8[sequences, length], ``domain`` int8[sequences]."""

    tokens: NDArray[np.uint8]
    domain: NDArray[np.int8]


def load_corpus(stdlib: Path | None = None) -> Corpus:
    """Collect the text of all domains from this Python's standard library, or from another in ``stdlib``."""
    train: dict[str, list[str]] = {name: [] for name in DOMAINS}
    evaluation: dict[str, list[str]] = {name: [] for name in DOMAINS}
    for domain, document, text in _documents(stdlib or Path(sysconfig.get_path("stdlib"))):
        side = evaluation if is_for_evaluation(document) else train
        side[domain].append(text)
    return Corpus(
        train={name: _bytes(parts) for name, parts in train.items() if name not in HELD_OUT},
        evaluation={name: _bytes(parts) for name, parts in evaluation.items()},
    )


def is_for_evaluation(document: str) -> bool:
    """Return whether the document of this name is kept out of training."""
    fraction = int.from_bytes(hashlib.sha256(document.encode()).digest()[:4], "big") / 2**32
    return fraction < EVALUATION_SHARE


def evaluation_text(corpus: Corpus, n_sequences: int, length: int, seed: int) -> EvaluationText:
    """Draw non-overlapping windows of evaluation text, the domains taking turns, so that any prefix is even.

    The seed is one of its own: recordings with other training seeds are still made on the same text.
    """
    rng = np.random.default_rng(seed)
    per_domain = -(-n_sequences // len(DOMAINS))
    windows = np.empty((per_domain, len(DOMAINS), length), np.uint8)
    for index, name in enumerate(DOMAINS):
        text = corpus.evaluation[name]
        start = rng.permutation(text.size // length)[:per_domain] * length
        windows[:, index] = text[start[:, None] + np.arange(length)]
    tokens = windows.reshape(-1, length)[:n_sequences]
    domain = np.arange(n_sequences, dtype=np.int64) % len(DOMAINS)
    return EvaluationText(np.ascontiguousarray(tokens), domain.astype(np.int8))


def training_batch(corpus: Corpus, n_sequences: int, length: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw uint8[n_sequences, length + 1] of training text: every domain equally likely, offsets uniform."""
    names = sorted(corpus.train)
    batch = np.empty((n_sequences, length + 1), np.uint8)
    for row, which in enumerate(rng.integers(len(names), size=n_sequences)):
        text = corpus.train[names[which]]
        start = rng.integers(text.size - length)
        batch[row] = text[start : start + length + 1]
    return batch


def _bytes(parts: list[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(parts).encode("utf-8", "replace"), np.uint8)


def _documents(stdlib: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (domain, document, text); what comes from one source file carries its name in every domain."""
    for path in sorted(stdlib.rglob("*.py")):
        relative = path.relative_to(stdlib)
        if SKIPPED_FOLDERS & set(relative.parts[:-1]) or path.stat().st_size > MAX_SOURCE_BYTES:
            continue
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (UnicodeDecodeError, SyntaxError):
            continue  # sources in other encodings are few, and not worth guessing at
        code, docstrings = _code_and_docstrings(source, tree)
        document = relative.as_posix()
        yield "python", document, code
        if docstrings:
            yield "prose", document, docstrings
        if is_for_evaluation(document):
            yield "bytecode", document, _disassembly(source, document)
    from pydoc_data.topics import topics

    for topic in sorted(topics):
        yield "prose", f"topic/{topic}", topics[topic]
    yield from _unicode_records()


def _code_and_docstrings(source: str, tree: ast.Module) -> tuple[str, str]:
    lines = source.splitlines(keepends=True)
    docstrings = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        if text is None:
            continue
        place = node.body[0]
        for number in range(place.lineno - 1, place.end_lineno or place.lineno):
            lines[number] = ""
        if len(text) >= MIN_DOCSTRING_BYTES:
            docstrings.append(text + "\n\n")
    return "".join(lines), "".join(docstrings)


def _disassembly(source: str, document: str) -> str:
    listing = StringIO()
    dis.dis(compile(source, document, "exec", dont_inherit=True), file=listing)
    # Addresses of code objects differ from run to run.
    return "\n".join(line for line in listing.getvalue().splitlines() if "code object" not in line) + "\n"


def _unicode_records() -> Iterator[tuple[str, str, str]]:
    for block in range(0, 0x20000, 256):
        records = []
        for point in range(block, block + 256):
            character = chr(point)
            name = unicodedata.name(character, "")
            if name and not name.startswith(COUNTED_NAMES):
                category, direction = unicodedata.category(character), unicodedata.bidirectional(character)
                decomposition = unicodedata.decomposition(character)
                records.append(f"{point:04X};{name};{category};{direction};{decomposition}\n")
        if records:
            yield "unicode", f"block/{block:05X}", "".join(records)
