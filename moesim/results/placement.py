"""The verdict on placements, as plain data: what each gives on tokens that it has not seen, and what it costs."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from moesim.results.definitions import Value
from moesim.units import format_bytes


@dataclass(frozen=True)
class PlacementOption:
    """One policy with one number of slots.

    Attributes:
        policy: its name; ``redundant`` slots beyond one for each expert.
        loads: max / mean of ranks and nodes, and nodes per token, by what they were judged on.
        layer_time_s: of the tokens it is judged on; ``layers_time_s`` of all MoE layers of the model.
        saved: share of the present placement's time that it saves, with the interval of the difference.
        apart: whether that is more than the model's error.
        moves: weights that change place in a layer, on average; ``moved_bytes`` in all layers.
        migration_s: by mode, what one rearrangement of all layers costs; a mode that was not simulated is not there.
        break_even_steps: by mode, after how many steps it has paid; None where it never does.
        break_even_drifting_steps: the same (blocking) where the load drifts as the verdict states.
        hbm_bytes: of the redundant slots in all layers, ``hbm_bytes_per_rank`` on each GPU.
    """

    policy: str
    redundant: int
    loads: Mapping[str, float | None]
    layer_time_s: float
    layers_time_s: float
    saved: Value
    apart: bool
    moves: float
    moved_bytes: float
    migration_s: Mapping[str, float]
    break_even_steps: Mapping[str, float | None]
    break_even_drifting_steps: float | None
    hbm_bytes: float
    hbm_bytes_per_rank: float

    @property
    def name(self) -> str:
        """Policy and redundant slots, as rows are called."""
        return f"{self.policy}, {self.redundant} redundant" if self.redundant else self.policy

    @property
    def words(self) -> str:
        """Policy and redundant slots in a sentence."""
        return f"{self.policy} with {self.redundant} redundant slots" if self.redundant else self.policy


@dataclass(frozen=True)
class Ageing:
    """How fast a placement ages: max / mean of ranks over windows of the recording, learnt on the first.

    Attributes:
        window_tokens: tokens of a window; 0 where the recording is too short to say.
        said: what was measured, or why not, in words.
        curves: by what each window was placed by: ``none``, ``stale`` (the first window), ``fresh`` (the one before),
            ``itself``; [windows] each.
        lasts: windows until half of what a fresh placement gains is lost; None where it does not come to that.
    """

    window_tokens: int
    said: str
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    lasts: int | None = None


@dataclass(frozen=True)
class PlacementVerdict:
    """What placements of a scenario's experts are worth.

    Attributes:
        learnt_from, judged_on: the tokens, in words; ``same``: they are the same ones.
        present: the placement that all are measured against.
        options: the present one first.
        frontier: of affinity: max / mean of nodes and nodes per token, pairs, from the tightest limit on.
        drift_steps: after how many steps a gain has fallen to 1/e of itself where the load drifts: assumed.
        notes: what the numbers rest on.
    """

    scenario: str
    phase: str
    learnt_from: str
    judged_on: str
    same: bool
    present: str
    options: tuple[PlacementOption, ...]
    ageing: Ageing
    frontier: tuple[tuple[float, float], ...]
    drift_steps: float
    notes: tuple[str, ...]

    @property
    def best(self) -> PlacementOption | None:
        """The fastest option, None where none beats the present one by more than the model's error."""
        ahead = [one for one in self.options if one.apart and one.saved.value > 0]
        return min(ahead, key=lambda one: (one.layer_time_s, one.hbm_bytes), default=None)

    def sentence(self) -> str:
        """The answer in words."""
        best, head = self.best, ""
        if self.same:
            head = "Learnt and judged on the same tokens, so at most: "
        if best is None:
            nearest = min(self.options[1:], key=lambda one: one.layer_time_s, default=None)
            words = f"nothing beats {self.present} by more than the model's error"
            if nearest is not None and nearest.saved.value > 0:
                words += f"; {nearest.words} comes to {percent(nearest.saved.value)}"
            return f"{head}{words}." if head else f"{words[0].upper()}{words[1:]}."
        low, high = best.saved.low or 0.0, best.saved.high or 0.0
        faster = f"{percent(best.saved.value)} faster {self.phase} ({percent(low)} to {percent(high)})"
        paid = {mode: steps for mode, steps in best.break_even_steps.items() if steps is not None}
        mode = min(paid, key=lambda one: paid[one], default=None)
        when = f", placed anew ({mode}) every {whole(paid[mode])} steps or more" if mode else ""
        memory = f", for {format_bytes(best.hbm_bytes_per_rank)} of each GPU" if best.redundant else ""
        return f"{head}{best.words}{when}: {faster}{memory}."

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain data: times in seconds, sizes in bytes, null where something does not apply."""
        plain = asdict(self) | {"sentence": self.sentence(), "best": self.best.name if self.best else None}
        plain["options"] = [asdict(one) | {"placement": one.name, "saved": one.saved._asdict()} for one in self.options]
        return plain

    def _repr_html_(self) -> str:
        import moesim  # the package knows who makes pages; results do not

        return moesim.placement_in_notebook(self)


def percent(share: float) -> str:
    """A share in per cent, signed where it is below zero."""
    return f"{100 * share:.1f} %".replace("-", "−")


def whole(steps: float) -> str:
    """Steps, rounded up to two digits, so that what is said holds."""
    unit = 10.0 ** max(math.floor(math.log10(max(steps, 1.0))) - 1, 0)
    return f"{math.ceil(steps / unit) * unit:,.0f}"
