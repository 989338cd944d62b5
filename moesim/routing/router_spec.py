"""The few knobs that make a router, and the three published settings of them.

A router turns a token's logits into affinities (``score``), may restrict the token to the ``top_groups`` best
of ``n_groups`` groups of experts (devices in DeepSeek-V2, nodes in DeepSeek-V3; a group is ranked by
``group_score``), picks the ``top_k`` best experts that are left, and makes gates of their affinities
(``normalize``, ``scale``). V1, V2 and V3 differ in these knobs alone, so a kind is a preset and every knob
given explicitly overrides it.

Not modelled: token dropping and expert choice, which are decisions about a batch and not about a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError

Kind = Literal["v1", "v2", "v3"]
Score = Literal["softmax", "sigmoid"]
GroupScore = Literal["max", "sum", "top2", "topk_over_m"]


class _Preset(NamedTuple):
    score: Score
    group_score: GroupScore
    normalize: bool
    scale: float


# V1: DeepSeekMoE eq. 9-11. V2: eq. 20-22, and the maximum per device as in the released code, since the paper
# says only "the devices holding the highest-affinity experts". V3: eq. 12-16; the released code sums the two
# best of a node, which is the paper's K_r / M at its own 8 / 4.
_PRESETS: dict[str, _Preset] = {
    "v1": _Preset("softmax", "max", normalize=False, scale=1.0),
    "v2": _Preset("softmax", "max", normalize=False, scale=1.0),
    "v3": _Preset("sigmoid", "top2", normalize=True, scale=1.0),
}


class KernelKnobs(NamedTuple):
    """What the compiled passes read of a router, beside the groups themselves."""

    use_sigmoid: bool
    top_groups: int
    scores_per_group: int
    normalize: bool
    scale: float


@dataclass(frozen=True, init=False)
class RouterSpec:
    """A router: how affinities are made, which groups a token may reach, how gates are made.

    Every field holds its resolved value: what was not given is that of the preset ``kind``.

    Args:
        kind: ``v1`` (softmax, no renormalisation), ``v2`` (the same, groups ranked by their best expert) or
            ``v3`` (sigmoid, groups ranked by their two best experts, gates normalised over the selected).
        n_experts: routed experts, E.
        top_k: experts per token, K.
        n_groups: groups of experts (devices or nodes). One group means no limit.
        top_groups: groups that a token may reach, M.
        score: ``softmax`` or ``sigmoid``.
        group_score: ``max``, ``sum``, ``top2`` or ``topk_over_m`` (the ``max(1, K // M)`` highest): which of
            a group's scores are summed to rank it; never more than the group has.
        normalize: whether the gates of a token are divided by their sum.
        scale: factor on the gates (2.5 in the released DeepSeek-V3).
        group_of_expert: group of each expert [E] where groups are not those of ``numpy.array_split``.

    Raises:
        InputError: a figure out of bounds, or groups so small that M of them can hold fewer than K experts.

    Source: DeepSeekMoE eq. 9-11, DeepSeek-V2 eq. 20-22 and section 2.2.2, DeepSeek-V3 eq. 12-16.
    """

    kind: Kind
    n_experts: int
    top_k: int
    n_groups: int
    top_groups: int
    score: Score
    group_score: GroupScore
    normalize: bool
    scale: float
    group_of_expert: tuple[int, ...] | None

    def __init__(
        self,
        kind: str,
        n_experts: int,
        top_k: int,
        n_groups: int = 1,
        top_groups: int = 1,
        score: str | None = None,
        group_score: str | None = None,
        normalize: bool | None = None,
        scale: float | None = None,
        group_of_expert: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    ) -> None:
        preset = _PRESETS[_one_of("kind", kind, get_args(Kind))]
        resolved = {
            "kind": kind,
            "n_experts": _whole("n_experts", n_experts, 1, None),
            "top_k": _whole("top_k", top_k, 1, n_experts),
            "n_groups": _whole("n_groups", n_groups, 1, n_experts),
            "top_groups": _whole("top_groups", top_groups, 1, n_groups),
            "score": preset.score if score is None else _one_of("score", score, get_args(Score)),
            "group_score": preset.group_score
            if group_score is None
            else _one_of("group_score", group_score, get_args(GroupScore)),
            "normalize": preset.normalize if normalize is None else bool(normalize),
            "scale": preset.scale if scale is None else _positive("scale", scale),
            "group_of_expert": None
            if group_of_expert is None
            else _checked_groups(group_of_expert, int(n_experts), int(n_groups)),
        }
        for name, value in resolved.items():
            object.__setattr__(self, name, value)
        self._check_room()

    def _check_room(self) -> None:
        if not self.limited:
            return
        sizes = np.sort(np.bincount(groups_of(self), minlength=self.n_groups))
        room = int(sizes[: self.top_groups].sum())
        if room < self.top_k:
            raise InputError(
                f"the {self.top_groups} smallest of {self.n_groups} groups hold {room} of {self.n_experts} "
                f"experts, fewer than top_k = {self.top_k}",
                "routing.top_groups",
                "raise top_groups, or lower top_k or the number of groups",
            )

    @property
    def limited(self) -> bool:
        """Whether there is a group that a token cannot reach (M below the number of groups)."""
        return self.top_groups < self.n_groups

    @property
    def scores_per_group(self) -> int:
        """How many of a group's highest scores are summed to rank it; small groups give what they have."""
        return {
            "max": 1,
            "sum": self.n_experts,
            "top2": 2,
            "topk_over_m": max(1, self.top_k // self.top_groups),
        }[self.group_score]


def kernel_knobs(spec: RouterSpec) -> KernelKnobs:
    """Return the knobs as the compiled passes read them: one group to reach where there is no limit."""
    return KernelKnobs(
        use_sigmoid=spec.score == "sigmoid",
        top_groups=spec.top_groups if spec.limited else 1,
        scores_per_group=spec.scores_per_group,
        normalize=spec.normalize,
        scale=spec.scale,
    )


def groups_of(spec: RouterSpec) -> NDArray[np.int32]:
    """Return the group of each expert, int32 [E].

    Contiguous groups as ``numpy.array_split`` makes them unless the spec lists its own: the first
    ``E % groups`` hold one expert more, so 258 experts in 64 groups are two of 5 and 62 of 4.
    """
    if spec.group_of_expert is not None:
        return np.array(spec.group_of_expert, dtype=np.int32)
    size, larger = divmod(spec.n_experts, spec.n_groups)
    sizes = np.full(spec.n_groups, size)
    sizes[:larger] += 1
    return cast(NDArray[np.int32], np.repeat(np.arange(spec.n_groups, dtype=np.int32), sizes))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InputError(f"unknown {name} {value!r}", f"routing.{name}", f"use one of {', '.join(allowed)}")
    return value


def _whole(name: str, value: int, low: int, high: int | None) -> int:
    where = f"routing.{name}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name} is {value!r}", where, "give a whole number")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise InputError(f"{name} is {value}", where, f"give a whole number {bounds}")
    return int(value)


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        raise InputError(f"{name} is {value!r}", f"routing.{name}", "give a positive number")
    return float(value)


def _checked_groups(
    group_of_expert: Sequence[int] | NDArray[np.integer[Any]], n_experts: int, n_groups: int
) -> tuple[int, ...]:
    where = "routing.group_of_expert"
    groups = np.asarray(group_of_expert)
    if groups.shape != (n_experts,) or not np.issubdtype(groups.dtype, np.integer):
        raise InputError(
            f"group_of_expert has shape {groups.shape} and type {groups.dtype}",
            where,
            f"give one whole number per expert, {n_experts} in all",
        )
    if groups.min() < 0 or groups.max() >= n_groups:
        raise InputError(
            f"group_of_expert runs from {groups.min()} to {groups.max()} but n_groups is {n_groups}",
            where,
            f"number the groups from 0 to {n_groups - 1} or set n_groups",
        )
    missing = np.flatnonzero(np.bincount(groups, minlength=n_groups) == 0)
    if missing.size:
        raise InputError(f"group {missing[0]} holds no expert", where, "leave empty groups out of n_groups")
    return tuple(int(group) for group in groups)
