"""Finding the gates of a transformers model: the matrices [E, hidden] whose products are the router logits.

Families call them gate or router and keep the matrix in the module itself or in a linear layer within it (``wg``,
``layer``, ``classifier``, ``proj``). A gate is told from other things of these names by its rows, a number of experts
in the config, and by the experts beside it.

Not found: routers that are more than one matrix (Zaya), or that have rows for shared experts too (Inkling).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moesim.errors import InputError

_GATES = ("gate", "router", "gating", "moe_gate")
_BIASES = ("e_score_correction_bias", "score_correction_bias", "correction_bias", "expert_bias", "expert_biases")
_TOP_K = re.compile(r"((num_)?experts?_per_tok(en)?|moe_(router_)?top_?k|moe_k|top_k_experts|num_selected_experts)")


@dataclass(frozen=True, eq=False)
class Gate:
    """One gate: modules of torch, and numbers.

    Attributes:
        path: its name in the model.
        n_experts: experts that it chooses among, E.
        linear: the module that holds ``weight`` [E, hidden].
        router: the module that the block calls as gate; ``linear`` itself or around it.
        block: the module that holds gate and experts.
        bias: tensor of E numbers that the model adds to its scores for the selection, or None.
    """

    path: str
    n_experts: int
    linear: Any
    router: Any
    block: Any
    bias: Any | None


def find_gates(model: Any) -> dict[int, Gate]:
    """Return the gates of a transformers model by the number of their layer, the first in their path (0 without one).

    Raises:
        InputError: none is there (the error says what was looked at), a layer has two, or they differ in experts.
    """
    numbers = list(_numbers(model.config.to_dict())) if hasattr(model, "config") else []
    sizes = {value for key, value in numbers if "expert" in key and value > 1}
    sizes |= {size + zero for size in sizes for key, zero in numbers if "zero_expert" in key}
    looked: list[str] = []
    gates: dict[int, Gate] = {}
    for path, module in model.named_modules():
        parts = path.split(".")
        at = next((i for i in range(max(0, len(parts) - 2), len(parts)) if parts[i] in _GATES), None)
        weight: Any = getattr(module, "weight", None)
        if at is None or getattr(weight, "ndim", 0) != 2:
            continue
        looked.append(f"{path} {list(weight.shape)}")
        block = model.get_submodule(".".join(parts[:at]))
        beside = any("expert" in f"{name} {type(child).__name__}".lower() for name, child in block.named_children())
        if weight.shape[0] not in sizes or not beside or "experts" in parts[:-1]:
            continue
        layer = next((int(part) for part in parts if part.isdigit()), 0)
        router, bias = model.get_submodule(".".join(parts[: at + 1])), _bias(block, weight.shape[0])
        gate = Gate(path, weight.shape[0], module, router, block, bias)
        twin = gates.setdefault(layer, gate)
        if twin is not gate:
            raise InputError(f"layer {layer} has two gates, {twin.path} and {path}", "model", "give one of its stacks")
    if not gates:
        saw = f"saw {', '.join(looked[:3])}" if looked else "saw no module of these names"
        told = f"E is one of {sorted(sizes)} in its config" if sizes else "its config names no number of experts"
        fix = f"a gate or router has a weight [E, hidden]; {told}"
        raise InputError(f"no gate found in {type(model).__name__}: {saw}", "model", fix)
    if len({gate.n_experts for gate in gates.values()}) > 1:
        raise InputError("its layers differ in their number of experts", "model", "a trace has one for all")
    return gates


def experts_per_token(model: Any) -> int | None:
    """Return how many experts the config says that a token selects; None where it says none, or several."""
    found = {value for key, value in _numbers(model.config.to_dict()) if _TOP_K.fullmatch(key)}
    return found.pop() if len(found) == 1 else None


def _bias(block: Any, n_experts: int) -> Any | None:
    tensors = (*block.named_buffers(), *block.named_parameters())
    fits = (one for name, one in tensors if name.split(".")[-1] in _BIASES and one.numel() == n_experts)
    return next(fits, None)


def _numbers(config: Mapping[Any, Any]) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, int) and not isinstance(one, bool):
                yield str(key), one
