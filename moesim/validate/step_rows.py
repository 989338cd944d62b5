"""Published steps beside simulated ones: at the frozen constants, then with one engine constant fitted on one row.

A profile whose loads were even is dealt even ones; of the other sources none states its own, so every expert is equally
likely and each token's are drawn by the model's own router. An engine constant is what one row of a
source, model, GPU and phase is off; it is divided out of the others of the same group, never of its own row. Rows that
only a profile or a trace gives, as DeepSeek's, have none: they stand alone.
"""

import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.model import load_model
from moesim.run import simulate
from moesim.scenario import Scenario, load_scenario
from moesim.spawn import map_in_processes
from moesim.validate.error_spread import Spread
from moesim.validate.published_steps import TIMES, Step

_SEED = 0
_MOST_DISTINCT = 1 << 15
# A row counts towards the bars where its source states batch, context and overlap.
BAR, NAMED_BEYOND = (0.04, 0.20), 0.10


@dataclass(frozen=True)
class Outcome:
    """A step, and what moesim says of it in the row's unit.

    Attributes:
        simulated: at the frozen constants; None where it is refused.
        low, high: what is not known of the cluster, 80 %.
        fitted: with the engine constant of its group; None where the group has no other row.
        fitted_on: the row that the constant is from.
        mfu, hidden: of training, causal MFU and the share of communication that is hidden.
    """

    step: Step
    simulated: float | None = None
    low: float | None = None
    high: float | None = None
    mfu: float | None = None
    hidden: float | None = None
    fitted: float | None = None
    fitted_on: str = ""

    @property
    def error(self) -> float | None:
        """In the row's unit at the frozen constants: of throughput above 0 too fast, of a time below."""
        return None if self.simulated is None else self.simulated / self.step.measured - 1

    @property
    def fitted_error(self) -> float | None:
        """The same with the engine constant; None for the row that it is fitted on."""
        return None if self.fitted is None or self.fitted_on == self.step.name else self.fitted / self.step.measured - 1

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        row = self.step.row
        return {
            "id": self.step.name, "metric": row.get("metric", "throughput"), "unit": row["unit"],
            "measured": self.step.measured, "simulated": self.simulated, "low": self.low, "high": self.high,
            "fitted": self.fitted, "fitted_on": self.fitted_on or None, "error": self.error,
            "fitted_error": self.fitted_error, "mfu": self.mfu, "communication_hidden_share": self.hidden,
            "refused": self.step.refused or None, "source": row["source"],
            "assumptions": list(self.step.assumptions),
        }  # fmt: skip


def balanced_ids(tokens: int, n_experts: int, top_k: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Deal experts so that every one has as many tokens, within one: decks of all experts in turn, [tokens, K]."""
    decks = -(-tokens // (n_experts // top_k))
    dealt = np.argsort(rng.random((decks, n_experts)), axis=1).astype(np.int32)
    whole = dealt[:, : n_experts // top_k * top_k].reshape(-1, top_k)
    return whole[:tokens]


def scenario_of(step: Step, folder: Path) -> Scenario:
    """Return a step's scenario, written into ``folder``, with its experts where they are dealt."""
    load: dict[str, Any] = {"workload.synthetic": {"kind": "uniform"}}
    if "workload.recording" in step.settings:
        load = {}
    elif step.named:
        load = {"workload.expert_ids": _dealt(step, folder)}
    blocks: dict[str, dict[str, Any]] = {}
    for key, value in (step.settings | load).items():
        block, last = key.split(".")
        blocks.setdefault(block, {})[last] = value
    path = folder / "step.yaml"
    path.write_text("".join(f"{block}: {json.dumps(values)}\n" for block, values in blocks.items()), encoding="utf-8")
    return load_scenario(path)


class Simulated(NamedTuple):
    """A step in the row's unit and the ends of its interval; of training MFU and what of communication is hidden."""

    simulated: float
    low: float
    high: float
    mfu: float | None = None
    hidden: float | None = None


def _dealt(step: Step, folder: Path) -> str:
    preset, settings = load_model(step.settings["model.preset"]), step.settings
    per_rank = settings.get("workload.tokens_per_rank") or settings["workload.requests"] * (
        1 + settings.get("workload.draft_tokens", 0)
    )
    tokens = min(per_rank * settings["parallel.ep"], _MOST_DISTINCT)
    name = f"{step.row['id']}-{tokens}.npy"
    np.save(folder / name, balanced_ids(tokens, preset.n_experts, preset.router.top_k, np.random.default_rng(_SEED)))
    return name


def simulate_step(step: Step) -> Simulated | None:
    """Return what moesim says of a step; None where it is refused."""
    if step.refused:
        return None
    with tempfile.TemporaryDirectory() as folder:
        result = simulate(scenario_of(step, Path(folder)))
    of = "node" if step.row["unit"].endswith("node") else "gpu"
    rate, step_s = result.summary[f"tokens_per_second_per_{of}"], result.summary["step_time_s"]
    fast, slow = result.intervals.get("step_time_s", (step_s, step_s))
    training = (result.summary["mfu"], result.summary["communication_hidden_share"]) if step.training else ()
    if step.row["unit"] in TIMES:
        of_step = 1.0 if step.row["unit"] == "s" else 1e12 / rate / 3600 / step_s
        return Simulated(step_s * of_step, fast * of_step, slow * of_step, *training)
    return Simulated(rate, rate * step_s / slow, rate * step_s / fast, *training)


def evaluate_steps(
    steps: Iterable[Step], jobs: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Outcome]:
    """Simulate every step that is not refused, and fit one constant to each group of several rows."""
    chosen = list(steps)
    found = map_in_processes(simulate_step, chosen, jobs, lambda done: progress(done, len(chosen)))
    outcomes = [Outcome(step, **(rates._asdict() if rates else {})) for step, rates in zip(chosen, found, strict=True)]
    return [_with_constant(outcome, outcomes) for outcome in outcomes]


def _with_constant(outcome: Outcome, outcomes: list[Outcome]) -> Outcome:
    alike = (one for one in outcomes if one.step.engine == outcome.step.engine)
    group = [one for one in alike if one.simulated is not None and not one.step.reading]
    if outcome.simulated is None or outcome not in group or len(group) < 2:
        return outcome
    # The first that states everything; where none does, the first.
    base = next((one for one in group if one.step.states_all), group[0])
    assert base.simulated is not None  # noqa: S101 - only simulated ones are in a group
    constant = base.step.measured / base.simulated
    return replace(outcome, fitted=outcome.simulated * constant, fitted_on=base.step.name)


def judged(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The rows that bars are about: all stated, in a source with a fitted row, not that row itself."""
    return [one for one in outcomes if one.fitted_error is not None and one.step.states_all]


def spread(outcomes: Iterable[Outcome]) -> Spread | None:
    """How far the judged rows are off after the fit; None of no row."""
    errors = [one.fitted_error for one in judged(outcomes) if one.fitted_error is not None]
    return Spread.of_errors(errors) if errors else None
