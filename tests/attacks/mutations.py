"""Small damage to a file: to its bytes, to the numbers and words of a text, to the arrays of an archive."""

import io
import re

import numpy as np

NASTY = (
    "0",
    "-1",
    "1",
    "-0",
    "1e308",
    "1e400",
    "-1e308",
    "1e-320",
    "nan",
    "NaN",
    "inf",
    "-Infinity",
    ".inf",
    ".nan",
    "null",
    "true",
    "no",
    "~",
    "",
    '""',
    "[]",
    "{}",
    "[[]]",
    "[1]",
    "{a: 1}",
    '{"a": 1}',
    "9" * 400,
    "9" * 5000,
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "4294967296",
    "1099511627776",
    "65537",
    "100000",
    "1000000",
    "2.5",
    "1_0",
    "\u0661\u0662",
    "0x10",
    "0o17",
    "1e3",
    "+5",
    " 7",
    "1,5",
    "4000GB/s",
    "1e290PB/s",
    "1e-300B/s",
    "1e300s",
    "1e12s",
    "1e-320s",
    "400Gb",
    "2us",
    "64KiB",
    "../../etc/passwd",
    "/dev/zero",
    "x" * 200,
    "x" * 150_000,
    "\x1b]0;pwn\x07",
    "\x00",
    "\ufeff",
    "\u2028",
    "'",
    '"',
    "`",
    "<script>alert(1)</script>",
    "=1+1",
    "*a",
    "&a 1",
    "!!python/object:os.system",
    "[" * 100,
    "{" * 100,
    "- " * 100,
)
_TOKEN = re.compile(r"[A-Za-z_][\w-]*|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_INTEGERS = (0, 1, 255, 65_535, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def mutated(content, rng, others=()):
    """Return the content with one to three pieces of damage; ``others`` are whole files to splice with."""
    for _ in range(rng.choice((1, 1, 1, 1, 2))):
        text = _text(content)
        kinds = (_bytes, _arrays) if text is None else (_token, _token, _token, _lines, _bytes, _cell)
        content = rng.choice(kinds)(content, rng)
    if others and rng.random() < 0.02:
        other = rng.choice(others)
        content = content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]
    return content


def _text(content):
    if b"\0" in content[:4096]:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _token(content, rng):
    """A number or a word by something that is hard to read."""
    text = _text(content) or ""
    found = list(_TOKEN.finditer(text))
    if not found:
        return _bytes(content, rng)
    at = rng.choice(found)
    new = rng.choice(NASTY) if rng.random() < 0.8 else rng.choice(found)[0]
    return (text[: at.start()] + new + text[at.end() :]).encode("utf-8", "surrogatepass")


def _cell(content, rng):
    """One cell of a line of cells, or one value of a line."""
    lines = (_text(content) or "").split("\n")
    at = rng.randrange(len(lines))
    mark = next((mark for mark in (",", "\t", ": ", " ") if mark in lines[at]), ",")
    cells = lines[at].split(mark)
    which = rng.randrange(len(cells))
    kind = rng.randrange(3)
    cells[which : which + 1] = [rng.choice(NASTY)] if kind == 0 else [] if kind == 1 else [cells[which]] * 2
    lines[at] = mark.join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _lines(content, rng):
    """A line lost, twice, moved, indented or cut."""
    lines = (_text(content) or "").split("\n")
    at, to, kind = rng.randrange(len(lines)), rng.randrange(len(lines)), rng.randrange(6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(to, lines[at])
    elif kind == 2:
        lines[at], lines[to] = lines[to], lines[at]
    elif kind == 3:
        lines[at] = " " * rng.randrange(1, 5) + lines[at]
    elif kind == 4:
        lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
    else:
        lines[at] = lines[at] * rng.choice((2, 100))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _bytes(content, rng):
    """Bits flipped, a run of bytes overwritten, lost or put in, an integer field changed, the end cut off."""
    data = bytearray(content or b"\0")
    at, kind = rng.randrange(len(data)), rng.randrange(7)
    if rng.random() < 0.5:  # headers and footers matter more than what is between
        at = rng.choice((at % 256, len(data) - 1 - at % 256)) % len(data)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at] = rng.randrange(256)
    elif kind == 2:
        n = rng.randrange(1, 64)
        data[at : at + n] = bytes([rng.choice((0, 255, rng.randrange(256)))]) * n
    elif kind == 3:
        del data[at : at + rng.randrange(1, 64)]
    elif kind == 4:
        data[at:at] = rng.randbytes(rng.randrange(1, 64))
    elif kind == 5:
        width = rng.choice((2, 4, 8))
        data[at : at + width] = (rng.choice(_INTEGERS) % (1 << (8 * width))).to_bytes(width, "little")
    else:
        del data[at:]
    return bytes(data)


def _arrays(content, rng):
    """An archive of numpy's, written again with one array of another type, shape or value; bytes of anything else."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = dict(archive)
    except Exception:
        return _bytes(content, rng)
    if not arrays:
        return _bytes(content, rng)
    name = rng.choice(sorted(arrays))
    arrays[name] = changed(arrays[name], rng)
    if rng.random() < 0.1:
        del arrays[name]
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def changed(array, rng):
    """Return an array of another type, shape or with another value."""
    array, kind = np.array(array), rng.randrange(6)
    if kind == 0 and array.dtype.kind in "iufb":
        with np.errstate(all="ignore"):
            return array.astype(rng.choice(("f8", "f4", "i8", "u1", "?", "c16", "i2", "u8")))
    if kind == 1:
        return array.reshape(-1)[: rng.randrange(array.size + 1)]
    if kind == 2:
        return array[None] if rng.random() < 0.5 or array.ndim == 0 or not len(array) else array[0]
    if kind == 3:
        return np.array(rng.choice((["x"], [], 7, [[1, 2]], [np.nan], [b"x" * 40])))
    if array.dtype.kind in "iuf" and array.size:
        worst = (np.nan, np.inf, -1.0, 1e308, 1e30) if array.dtype.kind == "f" else (-1, -2, 2**31 - 1, 2**62, 10**6)
        flat, value = array.reshape(-1), rng.choice(worst)
        top = None if array.dtype.kind == "f" else np.iinfo(array.dtype)
        with np.errstate(all="ignore"):
            flat[rng.randrange(array.size)] = value if top is None else min(max(value, top.min), top.max)
        return flat.reshape(array.shape)
    return array[:0] if array.ndim else array
