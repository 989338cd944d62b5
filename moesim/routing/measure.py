"""A batch routed and measured in one pass: experts, gates, loads, and the sums that balance losses are made of.

Sums of pieces of a batch add up to those of the whole, sequences one after the other: memory follows the experts, not
the tokens. Affinities are computed in float32 here, with an error of at most 3e-7 of each, which is
about what rounding does to a logit of 4 in float32; they are summed over up to sixteen tokens of a sequence in float32
and from there in float64, so that sums are right to 1e-6. ``moesim.balance`` makes the losses of them, and has the same
losses token by token in float64, with gradients.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError
from moesim.routing.blocks import Batch, fused_pass_takes, route_in_blocks, zero_sums
from moesim.routing.router_spec import RouterSpec
from moesim.routing.scores import checked_bias, checked_logits


@dataclass(frozen=True, eq=False)
class SequenceSums:
    """Per sequence, in ascending order of their ids; arrays [S].

    ``weight``: copies of its tokens; ``tokens``: those with copies; ``product``: sum over the experts of selections
    times summed affinities, both weighted; ``max_over_mean``: of its expert loads, each token once.
    """

    weight: NDArray[np.float64]
    tokens: NDArray[np.float64]
    product: NDArray[np.float64]
    max_over_mean: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RouterSums:
    """What a batch's balance is made of; those of pieces of a batch add up.

    Attributes:
        weight: copies of all tokens together, T.
        load: selections of each expert, [E].
        affinity: sum over the tokens of affinities whose sum over the experts is 1, [E].
        received: tokens that each device receives, each once, [D]; empty without devices.
        logsumexp_squared: sum over the tokens of logsumexp(logits)^2.
        gate_mass_lost: sum over the tokens of the share of affinity that groups and bias cost.
        sequences: None where no sequences were given.
    """

    weight: float
    load: NDArray[np.float64]
    affinity: NDArray[np.float64]
    received: NDArray[np.float64]
    logsumexp_squared: float
    gate_mass_lost: float
    sequences: SequenceSums | None


def route_and_measure(
    logits: ArrayLike,
    spec: RouterSpec,
    bias: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    device_of_expert: ArrayLike | None = None,
    sequence_id: ArrayLike | None = None,
    bfloat16: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.float32], RouterSums]:
    """Route a batch, or a piece of one, and sum up what its losses are made of, in one pass on all cores.

    The selection and the gates are those of ``route``; the sums do not depend on the number of threads.

    Args:
        logits: [T, E], float32, float16, or bfloat16 as its bits.
        spec: the router; at least 64 experts, at most 8 of them per token.
        bias: [E], on a sigmoid router.
        weight: [T], copies of each token in the batch; 1 each by default.
        device_of_expert: int [E], 0 to D - 1, for the tokens received per device.
        sequence_id: int [T], for the figures per sequence; a sequence must lie in one piece as a whole.
        bfloat16: the logits are uint16 that hold the bits of bfloat16.

    Returns:
        Expert ids int32 [T, K], gates float32 [T, K], and the sums.

    Raises:
        InputError: wrong shapes or types, a router or logits that this pass is not made for (see
            ``fused_pass_takes``), a NaN or infinite logit (the error names the token), or a bias that is not finite.
    """
    x = checked_logits(logits, spec, bfloat16)
    selection_bias = checked_bias(bias, spec)
    if not fused_pass_takes(spec, x.dtype, selection_bias.size > 0):
        raise InputError(
            f"no fused pass for {spec.kind} top-{spec.top_k} of {spec.n_experts} experts on {x.dtype} logits",
            "route_and_measure",
            "use route, then moesim.balance.measure",
        )
    copies = np.ones(len(x)) if weight is None else _array("weight", weight, np.float64, len(x))
    device = np.empty(0, np.int64)
    if device_of_expert is not None:
        device = _array("device_of_expert", device_of_expert, np.int64, spec.n_experts)
    order = sequence_ptr = None
    if sequence_id is not None:
        sequence = _array("sequence_id", sequence_id, np.int64, len(x))
        order = np.argsort(sequence, kind="stable")
        begins = np.flatnonzero(np.diff(sequence[order], prepend=sequence.min(initial=0) - 1))
        sequence_ptr = np.append(begins, len(x))
    ids, gates = np.empty((len(x), spec.top_k), np.int32), np.empty((len(x), spec.top_k), np.float32)
    batch = Batch(x, spec, selection_bias, ids, gates, copies, device, order, sequence_ptr)
    total, rows = zero_sums(batch), [np.empty((0, 4))]
    for sums, per_sequence in route_in_blocks(batch):
        for field, array in zip(total, sums, strict=True):
            field += array
        rows.append(per_sequence)
    measured = RouterSums(
        weight=float(total.scalars[0]),
        load=total.load,
        affinity=total.affinity,
        received=total.received,
        logsumexp_squared=float(total.scalars[1]),
        gate_mass_lost=float(total.scalars[2]),
        sequences=None if sequence_id is None else SequenceSums(*np.concatenate(rows).T),
    )
    return ids, gates, measured


def _array(name: str, values: ArrayLike, dtype: type, length: int) -> NDArray[Any]:
    array = np.asarray(values)
    if array.shape != (length,) or (dtype is np.int64 and array.dtype.kind not in "iu"):
        raise InputError(f"{name} has shape {array.shape} and type {array.dtype}", name, f"give {length} numbers")
    if name != "sequence_id" and array.size and not (np.isfinite(array).all() and array.min() >= 0):
        raise InputError(f"{name} holds {array.min()}", name, "give finite numbers, none below 0")
    return np.ascontiguousarray(array, dtype=dtype)
