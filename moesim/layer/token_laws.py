"""What holds of every routed token, whatever the router: a breach is our bug.

K different experts of those there are, in at most M groups; gates of at least 0, that sum to the router's scale where
it normalises. Sums are held to 1e-12 of the scale in float64, and to the rounding of what is stored in float32.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InvariantError
from moesim.routing import RouterSpec, groups_of

_CHUNK = 8192
_MANY = 24


def audit_tokens(
    where: str, ids: NDArray[np.int32], gates: NDArray[Any] | None, spec: RouterSpec, repeats: bool = False
) -> None:
    """Check every token.

    Args:
        where: the layer.
        ids: experts, [tokens, K]; -1 for none.
        gates: [tokens, K]; None where the workload gives the experts, which then need not keep the router's limits.
        spec: the router.
        repeats: a rule deals the experts that may name one twice.

    Raises:
        InvariantError: the law, the first token that breaks it, and its experts or gates.
    """
    group = groups_of(spec) if gates is not None and spec.limited else None
    for start in range(0, len(ids), _CHUNK):
        rows = np.ascontiguousarray(ids[start : start + _CHUNK].T)
        outside = ((rows < -1) | (rows >= spec.n_experts)).any(axis=0)
        _check(where, "selects an expert that is not there", outside, start, ids)
        if not repeats:
            _check(where, "selects an expert twice", _twice(rows), start, ids)
        if gates is None:
            continue
        if group is not None:
            far = _reached(group[rows], spec.n_groups) > spec.top_groups
            _check(where, f"reaches more than {spec.top_groups} groups", far, start, ids)
        own = gates[start : start + _CHUNK]
        _check(where, "has a gate that is none", ~(own >= 0).all(axis=1), start, gates)
        if spec.normalize:
            slack = spec.scale * (1e-12 if own.dtype == np.float64 else float(np.finfo(own.dtype).eps))
            off = np.abs(own.sum(axis=1, dtype=np.float64) - spec.scale)
            _check(where, f"has gates that do not sum to {spec.scale:g}", ~(off <= slack), start, gates)


def _twice(rows: NDArray[np.int32]) -> Any:
    """Whether a token has an expert twice, [tokens]; ``rows`` [K, tokens]."""
    if len(rows) > _MANY:
        ordered = np.sort(rows, axis=0)
        return ((ordered[1:] == ordered[:-1]) & (ordered[1:] >= 0)).any(axis=0)
    found = np.zeros(rows.shape[1], np.bool_)
    for k in range(1, len(rows)):
        found |= ((rows[:k] == rows[k]) & (rows[k] >= 0)).any(axis=0)
    return found


def _reached(groups: NDArray[np.int32], n_groups: int) -> Any:
    """How many different groups a token reaches, [tokens]; ``groups`` [K, tokens]."""
    if n_groups > 64:
        return 1 + (np.diff(np.sort(groups, axis=0), axis=0) > 0).sum(axis=0)
    return np.bitwise_count(np.bitwise_or.reduce(np.uint64(1) << groups.astype(np.uint64), axis=0))


def _check(where: str, law: str, broken: Any, start: int, shown: NDArray[Any]) -> None:
    if broken.any():
        token = start + int(broken.argmax())
        raise InvariantError(f"{where}: token {token} {law}: {shown[token].tolist()}")
