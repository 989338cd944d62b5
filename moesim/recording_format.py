"""The file in which recorded router logits travel: one ``.npz``, numpy only, no pickle.

A recording holds what the routers of a trained model said about a fixed text: the raw logits of the last
snapshot (many tokens of one MoE layer, fewer of the others), and of earlier training steps the expert
counts, balance losses, bias and the logits of the first tokens. The first ``T_l`` tokens of a layer are the
first tokens of the text, so that one draw of sequences serves every layer.

==================  ==========================  =========================================================
member              dtype, shape                meaning
==================  ==========================  =========================================================
meta                uint8[n]                    UTF-8 JSON; required keys in ``META_KEYS``
sequence, domain    int32[T], int8[T]           sequence of each token (contiguous), its domain
token_bytes         uint8[T]                    the text itself
logits_{layer}      float16[T_l, E]             last snapshot, T_l <= T
steps               int64[S]                    training step of each snapshot, increasing, last one last
early_logits        float16[S-1, L, T_e, E]     first T_e tokens at all snapshots but the last
counts              int64[S, L, E]              selections per expert over the in-domain tokens
domain_counts       int64[S, L, domains, E]     the same per domain, held-out ones included
bias                float32[S, L, E]            selection bias with which the snapshot was routed
losses              float64[S, L, len(names)]   named in meta "loss_names", over the in-domain tokens
language_loss       float64[S, domains]         nats per byte
sequence_imbalance  float64[S, L, sequences]    max/mean expert load of each sequence
==================  ==========================  =========================================================

A file is read defensively: member count, declared sizes and compression ratio are checked before anything is
allocated, and what does not fit is an ``InputError`` of one line. Not modelled: gates and expert ids, which
follow from logits, bias and router.
"""

import difflib
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moesim.bounded_text import read_json
from moesim.broken_files import reading
from moesim.errors import InputError
from moesim.files import mark, write_files
from moesim.numpy_file import read_npz

SCHEMA_VERSION = 1
RECORDING = "recording"
META_KEYS = (
    "schema_version", "name", "router", "balancing", "n_experts", "moe_layers", "model", "domains",
    "held_out", "text_sha256", "loss_names", "training", "provenance",
)  # fmt: skip
ROUTER_KEYS = ("kind", "score", "n_groups", "top_groups", "group_score", "normalize", "scale", "top_k")

# Arrays of a file with their type and axes, in the order in which they are written: T tokens, S snapshots (s without
# the last), L layers, E experts, D domains, N losses, Q sequences, * as many as there are; ``logits`` one per layer.
_MEMBERS = {
    "sequence": ("int32", "T"), "domain": ("int8", "T"), "token_bytes": ("uint8", "T"), "logits": ("float16", "*E"),
    "steps": ("int64", "S"), "early_logits": ("float16", "sL*E"), "counts": ("int64", "SLE"),
    "domain_counts": ("int64", "SLDE"), "bias": ("float32", "SLE"), "losses": ("float64", "SLN"),
    "language_loss": ("float64", "SD"), "sequence_imbalance": ("float64", "SLQ"),
}  # fmt: skip
_FIELDS = {"bias": "biases"}
"""Fields of a `Recording` that are called otherwise than their member."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Recording:
    """Router logits of one trained model on one text; arrays as in the module's table.

    ``last_logits[layer]`` is float16[T_l, E]; ``early_logits`` float16[S-1, L, T_e, E].
    """

    meta: Mapping[str, Any]
    sequence: NDArray[np.int32]
    domain: NDArray[np.int8]
    token_bytes: NDArray[np.uint8]
    last_logits: Mapping[int, NDArray[np.float16]]
    steps: NDArray[np.int64]
    early_logits: NDArray[np.float16]
    counts: NDArray[np.int64]
    domain_counts: NDArray[np.int64]
    biases: NDArray[np.float32]
    losses: NDArray[np.float64]
    language_loss: NDArray[np.float64]
    sequence_imbalance: NDArray[np.float64]

    @property
    def name(self) -> str:
        """Name under which the recording is quoted."""
        return str(self.meta["name"])

    @property
    def router(self) -> dict[str, Any]:
        """Knobs of the router that the model was trained with (those of ``RouterSpec``)."""
        return dict(self.meta["router"])

    @property
    def n_experts(self) -> int:
        """Routed experts per layer."""
        return int(self.meta["n_experts"])

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the recorded MoE layers, ascending; axis ``L`` of the arrays follows them."""
        return tuple(int(layer) for layer in self.meta["moe_layers"])

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of the text domains; ``domain`` indexes them."""
        return tuple(self.meta["domains"])

    @property
    def held_out(self) -> tuple[str, ...]:
        """Names of the domains that the model never saw in training."""
        return tuple(self.meta["held_out"])

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the last axis of ``losses``."""
        return tuple(self.meta["loss_names"])

    @property
    def n_tokens(self) -> int:
        """Tokens of the text, which the layer with the most logits covers."""
        return int(self.sequence.shape[0])

    def logits(self, layer: int, step: int | Literal["last"] = "last") -> NDArray[np.float16]:
        """Return raw router logits float16[T_l, E] of the first T_l tokens at a training step.

        Raises InputError for a layer or step that was not recorded.
        """
        index = self._snapshot(step)
        row = self._layer(layer)
        if index == len(self.steps) - 1:
            return self.last_logits[layer]
        early: NDArray[np.float16] = self.early_logits[index, row]
        return early

    def bias(self, layer: int, step: int | Literal["last"] = "last") -> NDArray[np.float32]:
        """Return the selection bias float32[E] of a layer at a training step (zeros unless trained with one).

        Raises InputError for a layer or step that was not recorded.
        """
        row: NDArray[np.float32] = self.biases[self._snapshot(step), self._layer(layer)]
        return row

    def _snapshot(self, step: int | Literal["last"]) -> int:
        if step == "last":
            return len(self.steps) - 1
        found = np.flatnonzero(self.steps == step)
        if len(found) == 0:
            recorded = ", ".join(str(s) for s in self.steps)
            raise InputError(f"no snapshot of training step {step}", self.name, f"recorded are {recorded} or last")
        return int(found[0])

    def _layer(self, layer: int) -> int:
        if layer not in self.layers:
            recorded = ", ".join(str(number) for number in self.layers)
            raise InputError(f"no MoE layer {layer}", self.name, f"recorded are {recorded}")
        return self.layers.index(layer)


def recordings_directory() -> Path:
    """Return the folder of the recordings that ship with moesim."""
    return Path(__file__).parent / "data" / "recordings"


def recording_path(path_or_name: str | os.PathLike[str]) -> Path:
    """Return the file that a path or the bare name of a shipped recording means.

    Raises InputError, with the closest name, if there is no such file.
    """
    text = os.fspath(path_or_name)
    bare = os.sep not in text and not text.endswith(".npz")
    path = recordings_directory() / f"{text}.npz" if bare else Path(text)
    if path.is_file():
        return path
    names = sorted(entry.stem for entry in recordings_directory().glob("*.npz"))
    if bare:
        close = difflib.get_close_matches(text, names, n=1)
        fix = f"did you mean {close[0]}?" if close else f"shipped are {', '.join(names) or 'none'}"
        raise InputError(f"no recording named {text!r}", "recording", fix)
    raise InputError("no such recording file", text, "give a .npz file or the bare name of a shipped recording")


def is_recording(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is meant as a recording; a plain array of logits is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "meta.npy" in archive.namelist() or "logits.npy" not in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        # Whoever reads it says what is wrong with it.
        return Path(path).suffix != ".npy"


def read_recording(path_or_name: str | os.PathLike[str]) -> Recording:
    """Read and check a recording.

    ``path_or_name`` is a ``.npz`` file or the bare name of a shipped recording (``tiny-v3``).
    Raises InputError, one line, for whatever is not a sound recording.
    """
    path = recording_path(path_or_name)
    where = str(path)
    with reading(path, "it may be truncated or of another kind", "not a readable .npz file"):
        arrays = read_npz(path)
    if "meta" not in arrays:
        raise InputError("no member 'meta'", where, "this is not a recording of moesim")
    meta = _parse_meta(arrays.pop("meta"), where)
    return _assemble(meta, arrays, where)


def write_recording(path: str | os.PathLike[str], recording: Recording) -> None:
    """Check a recording and write it; the file appears whole or not at all and holds no time stamp.

    Raises InputError if the recording is not sound, ResourceError if it cannot be written.
    """
    target = Path(path)
    arrays: dict[str, Array] = {}
    for member in _MEMBERS:
        if member != "logits":
            arrays[member] = getattr(recording, _FIELDS.get(member, member))
        else:
            arrays |= {f"logits_{layer}": recording.last_logits[layer] for layer in sorted(recording.last_logits)}
    meta_bytes = json.dumps(recording.meta, sort_keys=True, allow_nan=False).encode()
    meta = _parse_meta(np.frombuffer(meta_bytes, np.uint8), str(target))
    _assemble(meta, arrays, str(target))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.comment = mark(RECORDING).encode()
        for name, array in {"meta": np.frombuffer(meta_bytes, np.uint8), **arrays}.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as place:
                np.lib.format.write_array(place, np.ascontiguousarray(array), allow_pickle=False)
    write_files(target.parent, {target.name: stream.getvalue()})


def _parse_meta(raw: Array, where: str) -> dict[str, Any]:
    if raw.dtype != np.uint8 or raw.ndim != 1:
        raise InputError("member 'meta' is not uint8[n]", where)
    try:
        meta = read_json(raw.tobytes().decode("utf-8"), where)
    except ValueError as error:
        what = error.what if isinstance(error, InputError) else error
        raise InputError(f"member 'meta' is not JSON: {what}", where) from None
    if not isinstance(meta, dict):
        raise InputError("member 'meta' is not a JSON object", where)
    if meta.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"schema version {meta.get('schema_version')!r}",
            where,
            f"this moesim reads version {SCHEMA_VERSION}",
        )
    missing = [key for key in META_KEYS if key not in meta]
    if missing:
        raise InputError(f"meta lacks {', '.join(missing)}", where)
    router = meta["router"]
    if not isinstance(router, dict) or any(key not in router for key in ROUTER_KEYS):
        raise InputError(f"meta 'router' must name {', '.join(ROUTER_KEYS)}", where)
    _positive(meta["n_experts"], "n_experts", where)
    _positive(router["top_k"], "router.top_k", where)
    for key in ("domains", "held_out", "loss_names"):
        names = meta[key]
        if (
            not isinstance(names, list)
            or not all(isinstance(name, str) for name in names)
            or len({*names}) < len(names)
        ):
            raise InputError(f"meta {key!r} is not a list of different names", where)
    if not {*meta["held_out"]} <= {*meta["domains"]}:
        raise InputError("meta 'held_out' names a domain that is not in 'domains'", where)
    layers = meta["moe_layers"]
    if not isinstance(layers, list) or not layers or any(type(layer) is not int for layer in layers):
        raise InputError("meta 'moe_layers' is not a list of layer numbers", where)
    if layers != sorted({*layers}):
        raise InputError("meta 'moe_layers' is not ascending", where)
    return meta


def _positive(value: object, key: str, where: str) -> None:
    if type(value) is not int or value < 1:
        raise InputError(f"meta {key!r} is {value!r}, not a positive whole number", where)


def _assemble(meta: dict[str, Any], arrays: dict[str, Array], where: str) -> Recording:
    """Check every array against the meta data and against each other."""
    layers, experts, domains = meta["moe_layers"], meta["n_experts"], len(meta["domains"])
    expected = {name: kind for name, kind in _MEMBERS.items() if name != "logits"}
    expected |= {f"logits_{layer}": ("float16", "*E") for layer in layers}
    missing = [name for name in expected if name not in arrays]
    unknown = [name for name in arrays if name not in expected]
    if missing or unknown:
        listed = [f"no member {name!r}" for name in missing] + [f"unknown member {name!r}" for name in unknown]
        raise InputError(", ".join(listed), where)
    for name, (dtype, axes) in expected.items():
        array = arrays[name]
        if array.dtype != np.dtype(dtype) or array.ndim != len(axes):
            raise InputError(f"{name} is {array.dtype}[{array.ndim} axes], not {dtype}[{len(axes)} axes]", where)
    snapshots, sequences = len(arrays["steps"]), len(np.unique(arrays["sequence"]))
    sizes = {"T": len(arrays["sequence"]), "S": snapshots, "s": snapshots - 1, "L": len(layers), "E": experts,
             "D": domains, "N": len(meta["loss_names"]), "Q": sequences}  # fmt: skip
    for name, (_, axes) in expected.items():
        # An axis of no stated size is as long as it is.
        shape = tuple(sizes.get(axis, length) for axis, length in zip(axes, arrays[name].shape, strict=True))
        if arrays[name].shape != shape:
            raise InputError(f"{name} has shape {arrays[name].shape}, not {shape}", where)
    _check_values(meta, arrays, where)
    plain = {_FIELDS.get(name, name): arrays[name] for name in _MEMBERS if name != "logits"}
    return Recording(meta=meta, last_logits={layer: arrays[f"logits_{layer}"] for layer in layers}, **plain)


def _check_values(meta: dict[str, Any], arrays: dict[str, Array], where: str) -> None:
    layers, domain, tokens = meta["moe_layers"], arrays["domain"], len(arrays["sequence"])
    if tokens == 0 or len(arrays["steps"]) == 0:
        raise InputError("no tokens or no snapshots recorded", where)
    if max(len(arrays[f"logits_{layer}"]) for layer in layers) != tokens:
        raise InputError(f"no layer has the logits of all {tokens} tokens", where)
    if arrays["early_logits"].shape[2] > tokens or min(len(arrays[f"logits_{layer}"]) for layer in layers) == 0:
        raise InputError("a layer without logits, or early logits of more tokens than the text has", where)
    if np.any(np.diff(arrays["steps"]) <= 0) or arrays["steps"][0] < 0:
        raise InputError("steps do not increase from 0 or more", where)
    if np.any(np.diff(arrays["sequence"]) < 0) or arrays["sequence"][0] < 0:
        raise InputError("sequence ids decrease: the tokens of a sequence must stand together", where)
    if domain.min() < 0 or domain.max() >= len(meta["domains"]):
        raise InputError(f"a token's domain is outside 0..{len(meta['domains']) - 1}", where)
    for layer in layers:
        bad = np.flatnonzero(~np.isfinite(arrays[f"logits_{layer}"]).all(axis=1))
        if len(bad):
            raise InputError(f"layer {layer}, token {bad[0]}: a logit is NaN or infinite", where)
    for snapshot, row, token in np.argwhere(~np.isfinite(arrays["early_logits"]).all(axis=3))[:1]:
        step = arrays["steps"][snapshot]
        raise InputError(f"layer {layers[row]}, step {step}, token {token}: a logit is NaN or infinite", where)
    if hashlib.sha256(arrays["token_bytes"].tobytes()).hexdigest() != meta["text_sha256"]:
        raise InputError("token_bytes are not the text that meta 'text_sha256' names", where)
    for name in ("bias", "losses", "language_loss", "sequence_imbalance"):
        if not np.isfinite(arrays[name]).all():
            raise InputError(f"{name} holds NaN or infinity", where)
    held_out = [name in meta["held_out"] for name in meta["domains"]]
    in_domain = arrays["domain_counts"][:, :, ~np.array(held_out, bool)].sum(axis=2)
    if arrays["domain_counts"].min(initial=0) < 0 or not np.array_equal(in_domain, arrays["counts"]):
        raise InputError("counts are not the sum of domain_counts over the domains that are not held out", where)
