"""Balancing over a training run: V1, V2 and V3 on the same tokens, with traffic and time, and beside what was recorded.

Experts and bias move by the token form of ``moesim.balance``; every n-th step its batch goes through the layer as any
run's does. Copies that V2 drops are off the wires; its losses count the selection before dropping.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import ndtr

from moesim.balance import (
    Balancing,
    DynamicsConstants,
    LossFactors,
    Text,
    TokenForm,
    drop_over_capacity,
    embedding_gradient,
    expert_load,
    max_violation,
    uniform_router_max_over_mean,
)
from moesim.errors import InputError
from moesim.layer import KernelLedger, Parts
from moesim.measure import SummaryBuilder
from moesim.routing import RouterSpec, affinity, gate_mass_lost
from moesim.run.balance_fit import device_of
from moesim.run.balance_snapshots import Snapshots
from moesim.run.steps import initial_state, route_step, run_steps
from moesim.workload import Batch

Row = dict[str, Any]
TIMED = (
    "rank_load_max_over_mean", "node_load_max_over_mean", "link_load_max_over_mean", "rank_copies_per_token",
    "node_copies_per_token", "dispatch_time_s", "combine_time_s", "layer_time_s", "dispatch_algbw_bytes_per_s",
    "dispatch_nic_wire_bytes_per_s", "dispatch_nvlink_wire_bytes_per_s",
)  # fmt: skip
"""What a row has of the layer's simulation, by the names of a run's summary."""
EVALUATED_SEQUENCES, EVALUATED_LENGTH = 48, 256
# DeepSeek-V2 section 2.2.4: tokens of about a tenth of the sequences are never dropped.
_NEVER_DROPPED = 10
_FLOOR_STAGE = 6


@dataclass(frozen=True)
class Comparison:
    """A recorded training run beside its simulation.

    Attributes:
        name: of the run; ``fitted_on``: its steps that constants were fitted on.
        steps: of the snapshots after the start; ``recorded`` and ``simulated`` max/mean there, mean over layers.
        factors: how far apart, by how many times.
        bias_recorded, bias_simulated: spread of the bias there; empty without one.
        null: name of the run that would be as good a guess, and its factors; None where there is none.
    """

    name: str
    fitted_on: tuple[int, ...]
    steps: tuple[int, ...]
    recorded: tuple[float, ...]
    simulated: tuple[float, ...]
    factors: tuple[float, ...]
    bias_recorded: tuple[float, ...] = ()
    bias_simulated: tuple[float, ...] = ()
    null: tuple[str, tuple[float, ...]] | None = None


@dataclass(frozen=True)
class Study:
    """Rows by method and step, floors of an evaluation by name, comparisons with recorded runs, and constants.

    ``fitted_on``: names of the runs that constants were fitted on; none: they are those that ship.
    """

    rows: list[Row]
    floors: dict[str, float]
    comparisons: list[Comparison]
    constants: DynamicsConstants
    fitted_on: tuple[str, ...]

    def notes(self) -> list[str]:
        """What to know about these numbers, in sentences."""
        said = []
        if not self.fitted_on:
            said.append(
                "an illustration: constants of moesim's own small model, which do not travel to another; "
                "--fit takes them from snapshots of this one"
            )
        else:
            said.append(f"constants fitted on {', '.join(self.fitted_on)}; what was not compared is an illustration")
        for one in self.comparisons:
            if one.null is not None and median(one.factors) >= median(one.null[1]):
                said.append(f"{one.name}: the simulation is no better a guess than {one.null[0]} as it was recorded")
        return said


def methods_of(
    parts: Parts, names: Sequence[str], multiplicative: bool = False, magnitude: bool = False
) -> list[Balancing]:
    """Return ways of balancing the scenario's model by name: none, v1, v2 or v3.

    Groups are the scenario's; where its router has none, eight with M = 3 (V2) or 4 (V3), as published.
    """
    own, alpha = parts.router, parts.losses
    experts, top_k = own.n_experts, own.top_k
    n_groups = own.n_groups if own.limited else min(8, experts)
    group = own.group_of_expert if own.limited else None
    least = next(m for m in range(1, n_groups + 1) if m * (experts // n_groups) >= top_k)

    def limited(kind: str, published: int) -> RouterSpec:
        reach = own.top_groups if own.limited else min(n_groups, published)
        knobs = {name: getattr(own, name) for name in ("normalize", "scale")} if own.kind == kind else {}
        return RouterSpec(kind, experts, top_k, n_groups, max(least, reach), group_of_expert=group, **knobs)

    plain = RouterSpec("v1", experts, top_k)
    v2, v3 = limited("v2", 3), limited("v3", 4) if not multiplicative else RouterSpec("v3", experts, top_k)
    device = np.asarray(device_of(v2) if group is None else parts.loss_device, np.int64)
    form = alpha.form
    made = {
        "none": Balancing("none", plain, device),
        "v1": Balancing("v1", plain, device, LossFactors(alpha.expert, alpha.device, 0.0, 0.0, 0.0, form)),
        "v2": Balancing(
            "v2", v2, device, LossFactors(alpha.expert, alpha.device, alpha.communication, 0.0, 0.0, form),
            capacity_factor=1.0,
        ),
        "v3": Balancing(
            "v3", v3, device, LossFactors(0.0, 0.0, 0.0, alpha.sequence, 0.0), bias_rate=alpha.bias_rate,
            magnitude=magnitude, multiplicative=multiplicative,
        ),
    }  # fmt: skip
    unknown = [name for name in names if name not in made]
    if unknown:
        raise InputError(f"no method {unknown[0]!r}", "--method", f"use {', '.join(made)}")
    return [made[name] for name in dict.fromkeys(names)]


def study_method(
    parts: Parts,
    balancing: Balancing,
    constants: DynamicsConstants,
    text: Text,
    steps: int,
    every: int,
    layers: int = 1,
    watch: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Train with one method; one row for each ``every``-th step, for the first and the last.

    A row's MaxVio of a batch is the mean over the batches since the row before, all else is of its step; evaluations
    are of 48 sequences of 256 tokens, without dropping.
    """
    forms = [TokenForm(constants, balancing, steps, text, parts.seed, layer) for layer in range(layers)]
    rows: list[Row] = []
    violations: list[float] = []
    for step in range(steps + 1):
        drawn = [form.batch() for form in forms]
        n_experts = balancing.spec.n_experts
        violations += [max_violation(expert_load(one.expert_ids, n_experts)) for one in drawn]
        if step % every == 0 or step == steps:
            evaluated = [form.evaluated(EVALUATED_SEQUENCES, EVALUATED_LENGTH) for form in forms]
            seen = [max_violation(expert_load(one.expert_ids, n_experts)) for one in evaluated]
            kept = [_dropped(balancing, one.logits, one.expert_ids, one.sequence) for one in drawn]
            losses = [
                embedding_gradient(
                    one.tokens, one.logits, one.expert_ids, balancing.spec, balancing.device, parts.loss_factors,
                    sequence_id=one.sequence,
                ).values
                for one in drawn
            ]  # fmt: skip
            lost = [gate_mass_lost(one.logits, balancing.spec, one.expert_ids).mean() for one in drawn]
            rows.append(
                {
                    "method": balancing.name,
                    "step": step,
                    "max_violation_batch": float(np.mean(violations)),
                    "max_violation_global": float(np.mean(seen)),
                    "expert_load_max_over_mean": 1.0 + float(np.mean(seen)),
                    "bias_spread": float(np.mean([np.ptp(form.bias) for form in forms])),
                    "dropped_share": float(np.mean([(ids < 0).mean() for ids in kept])),
                    "gate_mass_lost": float(np.mean(lost)),
                    **{name: float(np.mean([own[name] for own in losses])) for name in losses[0]},
                    **timed(parts, balancing.spec, dict(enumerate(kept)), text.length),
                }
            )
            violations = []
        for form, one in zip(forms, drawn, strict=True):
            form.advance(one)
        watch()
    return rows


def _dropped(
    balancing: Balancing, logits: NDArray[Any], ids: NDArray[np.int32], sequence: NDArray[np.int64]
) -> NDArray[np.int32]:
    if balancing.capacity_factor is None:
        return ids
    scores = np.take_along_axis(affinity(logits, balancing.spec), ids.astype(np.int64), axis=1)
    exempt = sequence % _NEVER_DROPPED == _NEVER_DROPPED - 1
    return drop_over_capacity(ids, scores, balancing.device, balancing.capacity_factor, exempt)


def timed(parts: Parts, spec: RouterSpec, ids: Mapping[int, NDArray[np.int32]], length: int) -> Row:
    """Put a routed batch through the layers: figures by the names of ``TIMED``.

    Args:
        parts: of the scenario.
        spec: the router that chose.
        ids: layer -> experts [T, K] of distinct tokens, -1 for dropped copies; the ranks' tokens repeat them in order.
        length: tokens of a sequence.
    """
    ranks, distinct = parts.fabric.n_ranks, min(len(one) for one in ids.values())
    per_rank = parts.workload.tokens_per_rank or max(1, distinct // ranks)
    rank = np.repeat(np.arange(ranks), np.broadcast_to(np.asarray(per_rank), ranks)).astype(np.int32)
    batch = Batch(
        logits=None,
        bias={},
        expert_ids={layer: one[:distinct] for layer, one in ids.items()},
        token_index=(np.arange(len(rank)) % distinct).astype(np.int32),
        token_rank=rank,
        sequence=(np.arange(len(rank)) // length).astype(np.int32),
        domain=np.zeros(len(rank), np.int8),
        domain_names=("simulated",),
        distinct_tokens=min(distinct, len(rank)),
    )
    if distinct > len(rank):
        batch = replace(batch, expert_ids={layer: one[: len(rank)] for layer, one in ids.items()})
    section = parts.workload.model_copy(update={"layers_simulated": None})
    own = replace(parts, router=spec, bias="zero", update_bias=False, workload=section)
    summary, ledger = SummaryBuilder(own), KernelLedger()
    step, _ = route_step(own, initial_state(own, batch), batch)
    for _ in run_steps(own, [step], summary, ledger):
        pass
    built = summary.build(ledger.shares(), False)
    return {name: built[name] for name in TIMED}


def recorded_rows(parts: Parts, run: Snapshots) -> list[Row]:
    """The recorded snapshots of a run as rows: loads as counted, traffic and time of the tokens that it kept.

    Raises:
        InputError: the run is of another number of experts than the scenario.
    """
    if run.counts.shape[-1] != parts.router.n_experts:
        raise InputError(
            f"{run.name} has {run.counts.shape[-1]} experts, the scenario {parts.router.n_experts}",
            "--fit",
            f"-o model.n_experts={run.counts.shape[-1]}",
        )
    rows = []
    for index, (step, peak) in enumerate(zip(run.steps.tolist(), run.max_over_mean().tolist(), strict=True)):
        row: Row = {"method": f"{run.name}, recorded", "step": step, "expert_load_max_over_mean": peak}
        row |= {"max_violation_global": peak - 1.0}
        if run.bias_spread is not None:
            row["bias_spread"] = float(run.bias_spread[index])
        if run.router is not None and run.experts is not None:
            row |= timed(parts, run.router, run.experts(index), EVALUATED_LENGTH)
        rows.append(row)
    return rows


def compare(
    runs: Sequence[Snapshots], constants: DynamicsConstants, used: Mapping[str, tuple[int, ...]], layers: int, seed: int
) -> list[Comparison]:
    """Simulate recorded runs with their own routers and losses, and say how far off, also of the null models."""
    peaks = {run.name: run.max_over_mean() for run in runs}
    guess = next((run for run in runs if run.factors.expert), None)
    found = []
    for run in runs:
        if run.router is None:
            continue
        simulated, spread = simulated_run(run, constants, layers, seed)
        after = run.steps > 0
        recorded = peaks[run.name][after]
        null = None
        if guess is not None and guess is not run and run.balanced and np.array_equal(run.steps, guess.steps):
            null = (guess.name, _factors(peaks[guess.name][after], recorded))
        bias = () if run.bias_spread is None else tuple(run.bias_spread[after].tolist())
        found.append(
            Comparison(
                run.name,
                used.get(run.name, ()),
                tuple(run.steps[after].tolist()),
                tuple(recorded.tolist()),
                tuple(simulated[after].tolist()),
                _factors(simulated[after], recorded),
                bias,
                tuple(spread[after].tolist()) if bias else (),
                null,
            )
        )
    return found


def simulated_run(
    run: Snapshots, constants: DynamicsConstants, layers: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Simulate a recorded run; return max/mean and the spread of the bias at its snapshots, [S], mean over layers."""
    spec = run.router
    assert spec is not None  # noqa: S101 - the caller looked
    balancing = Balancing(run.name, spec, device_of(spec), run.factors, run.bias_rate)
    rate, steps = run.recipe or (constants.learning_rate, int(run.steps[-1]))
    # Sequences are what makes loads of batches differ: a quarter of their tokens says as much.
    text, sequences = Text(run.batch_sequences, EVALUATED_LENGTH // 4), run.sequences or EVALUATED_SEQUENCES
    peak, spread = np.zeros((2, layers, len(run.steps)))
    for layer in range(layers):
        form = TokenForm(replace(constants, learning_rate=rate), balancing, steps, text, seed, layer)
        for index, step in enumerate(run.steps):
            while form.step < step:
                form.advance(form.batch())
            load = expert_load(form.evaluated(sequences, EVALUATED_LENGTH).expert_ids, spec.n_experts)
            peak[layer, index], spread[layer, index] = load.max() / load.mean(), np.ptp(form.bias)
    return peak.mean(axis=0), spread.mean(axis=0)


def _factors(guess: NDArray[np.float64], recorded: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.exp(np.abs(np.log(guess / recorded))).tolist())


def floors(parts: Parts, constants: DynamicsConstants, sequences: int = EVALUATED_SEQUENCES) -> dict[str, float]:
    """Return the max/mean that an evaluation shows of perfectly even experts.

    ``sequences``: tokens of a sequence go together, so that a load scatters by ``sqrt(psi / sequences)`` and the
    largest of E lies that much times the mean maximum of E normals above 1. ``uniform_router``: tokens by themselves,
    which is far too low.
    """
    router = parts.router
    tokens = sequences * EVALUATED_LENGTH
    scatter = (constants.sequence_variance / sequences) ** 0.5
    rng = parts.rng(_FLOOR_STAGE)
    return {
        "sequences": 1.0 + mean_maximum_of_normals(router.n_experts) * scatter,
        "uniform_router": uniform_router_max_over_mean(tokens, router.n_experts, router.top_k, rng),
    }


def mean_maximum_of_normals(n: int) -> float:
    """Return the expected largest of n standard normals: 2.37 of 64."""
    above, _ = quad(lambda x: 1.0 - ndtr(x) ** n, 0.0, 12.0)
    below, _ = quad(lambda x: ndtr(x) ** n, -12.0, 0.0)
    return float(above - below)
