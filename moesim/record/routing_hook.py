"""Recording the routers of a transformers model as it runs: hooks on its gates, one trace in the end.

Logits are computed here, a float32 product of what the gate is given with its weight: what models return as router
logits differs by family and version (logits, probabilities, nothing). Experts are those that the model's own experts
are called with, or that its gate returns. Padding is left out; tokens stand sequence by sequence.

Not recorded: models cut over processes, encoder-decoders, models that drop or pack tokens before their gates.
"""

import inspect
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moesim.dumps import TRACE, RoutingTrace, Source, shortened, write_routing
from moesim.errors import InputError, ResourceError
from moesim.files import check_replaceable
from moesim.record.find_gates import Gate, experts_per_token, find_gates
from moesim.units import format_bytes, parse_bytes

Keep = Literal["logits", "ids"]


@contextmanager
def record_routing(
    model: Any, out: str | Path, *, keep: Keep = "logits", dtype: Literal["float32", "float16"] = "float32",
    limit: str = "4GB",
) -> Iterator["RoutingRecorder"]:  # fmt: skip
    """Record every forward call of ``model`` in the block; on leaving it ``out`` appears whole, or not if it raised.

    ``generate`` makes such calls too: a sequence goes on while its batch does.

    Args:
        model: a transformers model with gates, on any device and of any dtype.
        out: the trace to write, ``.npz``.
        keep: ``logits`` [layers, tokens, experts] and, where they are seen, the model's own experts; or these alone.
        dtype: how logits are kept; float16 halves their size, but more of them tie.
        limit: memory that what is kept may take; writing it takes up to twice as much again.

    Raises:
        InputError: no gate is found, none was called, the limit is reached, or the model does not route every token.
        ResourceError: ``out`` cannot be written.
    """
    for name, value, allowed in (("keep", keep, ("logits", "ids")), ("dtype", dtype, ("float32", "float16"))):
        if value not in allowed:
            raise InputError(f"{name} is {value!r:.40}", "record_routing", f"use {' or '.join(allowed)}")
    check_writable(Path(out), TRACE, "record_routing")
    recorder = RoutingRecorder(model, keep, dtype, parse_bytes(limit))
    handles = recorder._attach()
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()
    write_routing(out, recorder._trace())


def check_writable(out: Path, kind: str, where: str) -> None:
    """Refuse now what would fail after minutes of work: a name that is no ``.npz``, a place that cannot be written."""
    if out.suffix != ".npz":
        raise InputError(f"{out.name!r} does not end in .npz", where)
    check_replaceable(out, kind)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ResourceError(f"cannot write there: {error.strerror}", str(out)) from None


@dataclass(eq=False)
class _Call:
    """A forward call: which of its B x S places are tokens, their sequences, what the gates of each layer did."""

    used: Any  # bool [B * S], a tensor of the CPU
    sequence: NDArray[np.int32]
    logits: dict[int, NDArray[Any]] = field(default_factory=dict)
    ids: dict[int, NDArray[Any]] = field(default_factory=dict)


class RoutingRecorder:
    """What the gates have seen so far: ``tokens`` that are no padding, in the ``layers`` that have gates."""

    def __init__(self, model: Any, keep: Keep, dtype: str, limit: float) -> None:
        if (getattr(model, "tp_size", None) or 1) > 1:
            raise InputError(f"the model is cut over {model.tp_size} processes", "model", "load it in one")
        self._gates = find_gates(model)
        self.layers = tuple(sorted(self._gates))
        self._model, self._keep, self._dtype, self._limit = model, keep, dtype, limit
        self.tokens = self._bytes = self._padding = self._sequences = self._batch = 0
        self._call: _Call | None = None
        self._done: list[_Call] = []
        self._notes: set[str] = set()

    def _attach(self) -> list[Any]:
        handles = [
            self._model.register_forward_pre_hook(self._open, with_kwargs=True),
            self._model.register_forward_hook(self._close),
        ]
        for layer, gate in self._gates.items():
            before, after, chosen = (partial(f, layer, gate) for f in (self._see_input, self._after, self._see_ids))
            handles.append(gate.linear.register_forward_pre_hook(before, with_kwargs=True))
            for module in dict.fromkeys((gate.linear, gate.router, gate.block)):
                handles.append(module.register_forward_hook(after, with_kwargs=True))
            if hasattr(gate.block, "experts"):
                handles.append(gate.block.experts.register_forward_pre_hook(chosen, with_kwargs=True))
        return handles

    def _open(self, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        import torch

        given = dict(zip(inspect.signature(model.forward).parameters, args, strict=False)) | dict(kwargs)
        rows: list[Any] = [given[name] for name in ("input_ids", "inputs_embeds") if given.get(name) is not None]
        if not rows:
            raise InputError("a call without input_ids or inputs_embeds", "record_routing", "give one by name")
        batch, length = rows[0].shape[:2]
        mask: Any = given.get("attention_mask")
        cache: Any = given.get("past_key_values")
        goes_on = hasattr(cache, "get_seq_length") and int(cache.get_seq_length()) > 0
        used = torch.ones(batch, length, dtype=torch.bool)
        if getattr(mask, "ndim", 0) == 2 and mask.shape[0] == batch and mask.shape[1] >= length:
            used, goes_on = mask[:, -length:].bool().cpu(), goes_on or mask.shape[1] > length
        elif mask is not None:
            self._notes.add("the attention mask was not [batch, sequence]: padding is not told from tokens")
        if not goes_on or batch != self._batch:
            self._sequences, self._batch = self._sequences + self._batch, batch
        sequence = np.repeat(np.arange(self._sequences, self._sequences + batch, dtype=np.int32), length)
        self._call = _Call(used.reshape(-1), sequence[used.reshape(-1).numpy()])

    def _see_input(self, layer: int, gate: Gate, _: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        import torch

        call, weight = self._call, gate.linear.weight
        given = (x for x in (*args, *kwargs.values()) if torch.is_tensor(x) and x.is_floating_point())
        hidden = next((x for x in given if x.shape[-1:] == weight.shape[1:]), None)
        if call is None or hidden is None or self._keep == "ids":
            return
        if layer in call.logits:
            raise InputError(f"{gate.path} is called twice in one forward call", "model", "a trace has one of each")
        if weight.is_meta:
            raise InputError(f"{gate.path} is offloaded", "model", "keep the gates on a device")
        bias = getattr(gate.linear, "bias", None)
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            rows = self._tokens(call, gate, hidden.detach()).to(weight.device, torch.float32)
            logits = torch.nn.functional.linear(rows, weight.float(), None if bias is None else bias.float())
        call.logits[layer] = self._kept(logits.cpu().numpy().astype(self._dtype))

    def _after(
        self, layer: int, gate: Gate, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        # Some blocks take the weight of a gate and never call it: what they are given is the gate's input.
        if self._call is not None and layer not in self._call.logits:
            self._see_input(layer, gate, module, args, kwargs)
        if module is gate.router:
            self._see_ids(layer, gate, module, output if isinstance(output, tuple) else (output,), {})

    def _see_ids(self, layer: int, gate: Gate, _: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        import torch

        call = self._call
        if call is None:
            return
        for x in (*given, *named.values()):
            whole = torch.is_tensor(x) and x.dtype in (torch.int32, torch.int64) and x.ndim > 1
            if whole and 0 < x.shape[-1] <= gate.n_experts and x.numel() == len(call.used) * x.shape[-1]:
                ids = self._tokens(call, gate, x).cpu().numpy()
                ids = np.where(ids < gate.n_experts, ids, -1).astype(np.int16 if gate.n_experts < 1 << 15 else np.int32)
                call.ids[layer] = ids if layer in call.ids else self._kept(ids)

    def _tokens(self, call: _Call, gate: Gate, rows: Any) -> Any:
        """Return the rows [tokens, n] that are no padding."""
        rows = rows.reshape(-1, rows.shape[-1])
        if len(rows) != len(call.used):
            what = f"{gate.path} routes {len(rows)} tokens, the model was given {len(call.used)}"
            raise InputError(what, "model", "models that drop or pack tokens cannot be recorded")
        return rows if bool(call.used.all()) else rows[call.used.to(rows.device)]

    def _kept(self, array: NDArray[Any]) -> NDArray[Any]:
        self._bytes += array.nbytes
        if self._bytes > self._limit:
            fix = "record less, keep='ids' or dtype='float16', or raise limit"
            raise InputError(f"{format_bytes(self._limit)} are full at {self.tokens:,} tokens", "record_routing", fix)
        return array

    def _close(self, *_: Any) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        seen, first = (set(getattr(one, self._keep)) for one in (call, (self._done or [call])[0]))
        if not seen:
            fix = "keep='logits'" if self._keep == "ids" else "compiled models run past their hooks: give the plain one"
            raise InputError(f"no {self._keep} were seen at {self._gates[self.layers[0]].path}", "model", fix)
        if seen != first:
            raise InputError(f"layers {shortened(tuple(seen ^ first))} are routed in some calls only", "model")
        self._done.append(call)
        self.tokens += len(call.sequence)
        self._padding += len(call.used) - len(call.sequence)

    def _trace(self) -> RoutingTrace:
        if not self.tokens:
            raise InputError("no token was recorded", "record_routing", "call the model that was given, in the block")
        layers = sorted(getattr(self._done[0], self._keep))
        gates, idle = [self._gates[layer] for layer in layers], sorted({*self.layers} - {*layers})
        sequence = np.concatenate([call.sequence for call in self._done])
        step = np.repeat(np.arange(len(self._done), dtype=np.int32), [len(call.sequence) for call in self._done])
        order = np.argsort(sequence, kind="stable")
        notes = sorted(self._notes)
        notes += [f"{self._padding:,} places of padding are left out"] if self._padding else []
        if any(getattr(gate.router, "router_logit_softcapping", 0) for gate in gates):
            notes.append("the model caps its logits by a tanh; these are without the cap")
        notes += [f"layers {shortened(idle)} were never called and are left out"] if idle else []
        ids = None
        if all(call.ids.keys() >= {*layers} for call in self._done):
            ids = self._joined("ids", layers, order).astype(np.int32)
        else:
            notes.append("which experts the model itself selected is not seen")
        none = np.zeros(gates[0].n_experts, np.float32)
        bias = [none if gate.bias is None else gate.bias.detach().float().cpu().numpy().ravel() for gate in gates]
        return RoutingTrace(
            self._keep, tuple(layers), gates[0].n_experts,
            Source("transformers", f"gates of {type(self._model).__name__}"),
            top_k=experts_per_token(self._model) if ids is None else ids.shape[2],
            logits=self._joined("logits", layers, order) if self._keep == "logits" else None, ids=ids,
            bias=np.stack(bias) if any(gate.bias is not None for gate in gates) else None,
            step=step[order], sequence=sequence[order], notes=tuple(notes),
        )  # fmt: skip

    def _joined(self, name: str, layers: list[int], order: NDArray[np.intp]) -> NDArray[Any]:
        """Return [layers, tokens, n] of all calls; each layer is let go once it is copied."""
        parts = [getattr(call, name) for call in self._done]
        first = parts[0][layers[0]]
        joined = np.empty((len(layers), len(order), first.shape[1]), first.dtype)
        for row, layer in enumerate(layers):
            joined[row] = np.concatenate([part.pop(layer) for part in parts])[order]
        return joined
