"""Recorded routing from a file or folder, recognised by its content; what it does not say is asked for, not guessed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.bounded_text import read_json
from moesim.broken_files import content, reading
from moesim.dumps import imatrix, megatron, routed_experts, sglang, table_files, tensorrt_llm
from moesim.dumps.arrays import read_array_alone, read_arrays_by_name
from moesim.dumps.routing_columns import read_columns
from moesim.dumps.routing_trace import RoutingTrace, Source, Told, Unit, with_source
from moesim.dumps.safetensors_file import is_safetensors, read_safetensors
from moesim.dumps.torch_file import is_torch_file, read_torch
from moesim.dumps.trace_file import is_trace_file, read_trace_file
from moesim.errors import InputError
from moesim.numpy_file import is_numpy_array, is_zip, member_names, read_array, read_npz
from moesim.recording_format import read_recording

MAX_JSON_BYTES = 1 << 30
MOST_FILES = 100_000
KNOWN = (
    "read are moesim's trace and recording, SGLang's recorder, routed experts of SGLang and vLLM, TensorRT-LLM's "
    "statistics, Megatron's router trace, llama.cpp's imatrix.gguf, and npz, npy, safetensors, Parquet and CSV"
)


def read_routing(
    path: str | Path,
    *,
    n_experts: int | None = None,
    top_k: int | None = None,
    unit: Unit | None = None,
    axes: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    slot_expert: NDArray[np.int64] | None = None,
) -> RoutingTrace:
    """Read recorded routing, whoever wrote it.

    Args:
        path: a file, or a folder with the files of all ranks, steps or layers.
        n_experts: routed experts of a layer, where the file cannot say it; checked where it does.
        top_k: experts of a token, likewise.
        unit: logits, ids or counts, where an array has no name that says it.
        axes: names of an array's axes in their order, of ``step, layers, tokens, experts, k``.
        layers: numbers of the layers along the layer axis; as the file has them by default.
        slot_expert: expert of each slot, [slots] or [layers, slots], where the file holds slots.

    Raises:
        InputError: not a known form, or one that is broken, incomplete or could be read in two ways.
    """
    told = Told(
        n_experts, top_k, unit, None if axes is None else tuple(axes),
        None if layers is None else tuple(int(layer) for layer in layers), slot_expert,
    )  # fmt: skip
    path = Path(path)
    try:
        files = _files(path) if path.is_dir() else [path]
        trace = _folder(path, files, told) if path.is_dir() else _file(path, told)
        if told.unit in ("logits", "ids") and trace.unit != told.unit:
            raise InputError(f"it holds {trace.unit}, not {told.unit}", str(path))
        return with_source(trace, _digest(path, files))
    except (OSError, MemoryError) as error:
        with reading(path):
            raise error


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if len(files) > MOST_FILES:
        raise InputError(f"{len(files)} files", str(folder), f"at most {MOST_FILES} are read")
    return files


def _folder(folder: Path, files: list[Path], told: Told) -> RoutingTrace:
    if any(megatron.PATTERN.fullmatch(path.name) for path in files if path.parent == folder):
        return megatron.read_trace(folder, told)
    if (folder / tensorrt_llm.META).is_file():
        return tensorrt_llm.read_statistics(folder, _json(folder / tensorrt_llm.META), told)
    if files and all(path.suffix == ".pt" for path in files):
        dumps = {path: read_torch(path) for path in files}
        foreign = [path for path, data in dumps.items() if not sglang.is_dump(data)]
        if foreign:
            raise InputError("not a dump of SGLang's recorder", str(foreign[0]), KNOWN)
        return sglang.read_dump(dumps, told)
    parquet = [path for path in files if path.suffix == ".parquet"]
    if parquet and (len(parquet) == len(files) or len(parquet) > 1):
        layers = [path for path in parquet if path.parent.name != "samples"]
        return table_files.read_parquet(layers or parquet, told)
    if len(files) == 1:
        return _file(files[0], told)
    listed = ", ".join(path.name for path in files[:5]) or "nothing"
    raise InputError(f"a folder with {listed}", str(folder), KNOWN)


def _file(path: Path, told: Told) -> RoutingTrace:
    with reading(path), path.open("rb") as stream:
        head = stream.read(16)
    where = str(path)
    if is_zip(head):
        if is_torch_file(path):
            return _torch(path, told)
        names = member_names(path)
        if is_trace_file(names):
            return read_trace_file(path)
        if "meta" in names:
            return _recording(path, told)
        with reading(path):
            arrays = read_npz(path)
        return read_arrays_by_name(arrays, told, "npz", where)
    if is_numpy_array(head):
        return read_array_alone(read_array(path, ""), told, "npy", where)
    if head[:4] == b"GGUF":
        return imatrix.read_imatrix(path, told)
    if head[:4] == b"PAR1" or path.suffix.lower() == ".parquet":
        return table_files.read_parquet([path], told)
    if is_safetensors(head, path.stat().st_size):
        if tensorrt_llm.is_rank_file(path.name):
            raise InputError("one rank's statistics of TensorRT-LLM", where, "give the folder with all ranks")
        return read_arrays_by_name(read_safetensors(path), told, "safetensors", where)
    if head[:1] == b"\x80" or path.suffix == ".pt":
        raise InputError("a pickle that is no zip", where, "load it and write it again with torch.save")
    if head.lstrip()[:1] in (b"{", b"["):
        return _document(path, told)
    if path.suffix == ".dat":
        raise InputError("an importance matrix of the old form has no counts of experts", where, "write imatrix.gguf")
    if not path.suffix or path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return table_files.read_csv(path, told)
    raise InputError("not a known form", where, KNOWN)


def _torch(path: Path, told: Told) -> RoutingTrace:
    data = read_torch(path)
    if sglang.is_dump(data):
        beside = [other for other in path.parent.glob("expert_distribution_recorder_*.pt") if other != path]
        if "records" in data and beside and sglang.rank_of(path) is not None:
            raise InputError(f"one rank of {len(beside) + 1}", str(path), "give the folder: counts of ranks are summed")
        return sglang.read_dump({path: data}, told)
    return _plain(data, told, "torch", path)


def _plain(data: Any, told: Told, form: str, path: Path) -> RoutingTrace:
    """Numbers of no recorder: an array, a list of equal ones (as output_router_logits gives them), or some by name."""
    alone = _numbers(data)
    if alone is not None:
        return read_array_alone(alone, told, form, str(path))
    items = data.items() if isinstance(data, dict) else ()
    arrays = {str(name): array for name, item in items if (array := _numbers(item)) is not None}
    if arrays:
        return read_arrays_by_name(arrays, told, form, str(path))
    keys = ", ".join(map(str, data))[:200] if isinstance(data, dict) else type(data).__name__
    raise InputError(f"not a known dump: it holds {keys}", str(path), KNOWN)


def _numbers(item: Any) -> NDArray[Any] | None:
    """An array, or lists of equal length of numbers or arrays; None for anything else."""
    if not isinstance(item, np.ndarray | list | tuple):
        return None
    try:
        array = np.asarray(item)
    except ValueError:
        return None
    return array if array.dtype.kind in "iuf" and array.size and array.ndim else None


def _recording(path: Path, told: Told) -> RoutingTrace:
    """A recording of moesim's own: its last snapshot, of the tokens that all layers hold."""
    recording = read_recording(path)
    layers = told.layers or recording.layers
    rows = [recording.logits(layer) for layer in layers]
    tokens = min(len(row) for row in rows)
    return RoutingTrace(
        "logits", tuple(layers), recording.n_experts, Source("moesim", "recording"),
        top_k=int(recording.router["top_k"]),
        logits=np.stack([row[:tokens] for row in rows]).astype(np.float32),
        bias=np.stack([recording.bias(layer) for layer in layers]),
        sequence=recording.sequence[:tokens],
        notes=(f"the last snapshot of {recording.name}",),
    )  # fmt: skip


def _document(path: Path, told: Told) -> RoutingTrace:
    """JSON, or one JSON document per line."""
    data = _json(path, or_lines=True)
    items = data if isinstance(data, list) else [data]
    if len(items) == 1 and sglang.is_dump(items[0]):
        return sglang.read_dump({path: items[0]}, told)
    responses = routed_experts.responses_in(data)
    if responses:
        return routed_experts.read_responses(responses, told, str(path))
    if items and isinstance(items[0], dict) and {"top_indices", "layer"} <= items[0].keys():
        raise InputError("one rank's router trace of Megatron", str(path), "give the folder with all ranks")
    first = items[0] if items and isinstance(items[0], dict) else None
    if first and len(items) > 1 and all(isinstance(item, dict) and item.keys() == first.keys() for item in items):
        with reading(path, what="rows of unequal shape"):
            columns = {name: np.array([item[name] for item in items]) for name in first}
        return read_columns(columns, told, Source("table", "json"), str(path), lambda row: f"{path}: row {row + 1}")
    return _plain(first if first and len(items) == 1 else data, told, "json", path)


def _json(path: Path, or_lines: bool = False) -> Any:
    with reading(path, what="no JSON"):
        text = content(path, MAX_JSON_BYTES).decode()
        lines = text.splitlines() if or_lines else []
        # A first line that is a document by itself is followed by others; json.dump writes no break inside one.
        if len(lines) > 1 and lines[0][-1:] in ("}", "]") and lines[1].lstrip()[:1] in ("{", "["):
            return [read_json(line, str(path), line=i) for i, line in enumerate(lines, 1) if line.strip()]
        return read_json(text, str(path))


def _digest(path: Path, files: Sequence[Path]) -> str:
    """SHA-256 of the file, or of the names and digests of a folder's files."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if not path.is_dir():
        return digests[0]
    listed = "\n".join(f"{file.relative_to(path)} {digest}" for file, digest in zip(files, digests, strict=True))
    return hashlib.sha256(listed.encode()).hexdigest()
