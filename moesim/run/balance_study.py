"""Balancing over a training run: V1, V2 and V3 on the same tokens, with traffic and time, and beside what was recorded.

Experts and bias move by the token form of ``moesim.balance``; every n-th step its batch goes through the layer as any
run's does. Copies that V2 drops are off the wires; its losses count the selection before dropping.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr

from moesim import balance
from moesim.balance import Balancing, DynamicsConstants, LossFactors, Routed, Text, TokenForm, expert_load
from moesim.errors import InputError
from moesim.layer import Parts
from moesim.routing import RouterSpec, affinity, gate_mass_lost
from moesim.run.balance_fit import device_of
from moesim.run.balance_snapshots import Floats, Ids, Snapshots
from moesim.run.routed_steps import initial_state, route_step
from moesim.run.steps import summed_up
from moesim.workload import Batch, listed

Row = dict[str, Any]
TIMED = (
    "rank_load_max_over_mean", "node_load_max_over_mean", "link_load_max_over_mean", "rank_copies_per_token",
    "node_copies_per_token", "dispatch_time_s", "combine_time_s", "layer_time_s", "dispatch_algbw_bytes_per_s",
    "dispatch_nic_wire_bytes_per_s", "dispatch_nvlink_wire_bytes_per_s",
)  # fmt: skip
"""What a row has of the layer's simulation, by the names of a run's summary."""
EVALUATED = (48, 256)
"""Sequences of an evaluation, and tokens of each, as in the recordings."""
# DeepSeek-V2 section 2.2.4: tokens of about a tenth of the sequences are never dropped.
_NEVER_DROPPED = 10
_FLOOR_STAGE = 6


def methods_of(parts: Parts, names: Sequence[str], multiplicative: bool, magnitude: bool) -> list[Balancing]:
    """Return ways of balancing the scenario's model by name: none, v1, v2 or v3.

    Groups are the scenario's; where its router has none, eight with M = 3 (V2) or 4 (V3), as published.
    """
    own, alpha = parts.router, parts.losses
    experts, top_k = own.n_experts, own.top_k
    n_groups = own.n_groups if own.limited else min(8, experts)
    least = next(m for m in range(1, n_groups + 1) if m * (experts // n_groups) >= top_k)
    group = own.group_of_expert if own.limited else None

    def limited(kind: str, published: int) -> RouterSpec:
        reach = max(least, own.top_groups if own.limited else min(n_groups, published))
        return own if own.kind == kind and own.limited else RouterSpec(
            kind, experts, top_k, n_groups, reach, group_of_expert=group
        )  # fmt: skip

    plain, v2 = RouterSpec("v1", experts, top_k), limited("v2", 3)
    v3 = RouterSpec("v3", experts, top_k) if multiplicative else limited("v3", 4)
    device = device_of(v2) if group is None else np.asarray(parts.loss_device, np.int64)
    v1_losses = LossFactors(alpha.expert, alpha.device, 0.0, 0.0, 0.0, alpha.form)
    v3_losses = LossFactors(0.0, 0.0, 0.0, alpha.sequence, 0.0)
    made = {
        "none": Balancing("none", plain, device),
        "v1": Balancing("v1", plain, device, v1_losses),
        "v2": Balancing("v2", v2, device, replace(v1_losses, communication=alpha.communication), capacity_factor=1.0),
        "v3": Balancing("v3", v3, device, v3_losses, alpha.bias_rate, magnitude, multiplicative),
    }
    unknown = [name for name in names if name not in made]
    if unknown:
        raise InputError(f"no method {unknown[0]!r}", "--method", f"use {', '.join(made)}")
    return [made[name] for name in dict.fromkeys(names)]


def study_method(
    parts: Parts, balancing: Balancing, constants: DynamicsConstants, text: Text, steps: int, every: int,
    layers: int = 1, watch: Callable[[], None] = lambda: None,
) -> list[Row]:  # fmt: skip
    """Train with one method; one row for each ``every``-th step, for the first and the last.

    A row's MaxVio of a batch is the mean over the batches since the row before, all else is of its step; evaluations
    are without dropping.
    """
    forms = [TokenForm(constants, balancing, steps, text, parts.seed, layer) for layer in range(layers)]
    rows: list[Row] = []
    violations: list[float] = []
    for step in range(steps + 1):
        drawn = [form.batch() for form in forms]
        violations += [_violation(one) for one in drawn]
        if step % every == 0 or step == steps:
            seen = float(np.mean([_violation(form.evaluated(*EVALUATED)) for form in forms]))
            kept = [_kept(balancing, one) for one in drawn]
            losses = [_losses(parts, balancing, one) for one in drawn]
            lost = [gate_mass_lost(one.logits, balancing.spec, one.expert_ids).mean() for one in drawn]
            rows.append(
                {
                    "method": balancing.name,
                    "step": step,
                    "max_violation_batch": float(np.mean(violations)),
                    "max_violation_global": seen,
                    "expert_load_max_over_mean": 1.0 + seen,
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


def _violation(routed: Routed) -> float:
    return balance.max_violation(expert_load(routed.expert_ids, routed.logits.shape[1]))


def _losses(parts: Parts, balancing: Balancing, one: Routed) -> dict[str, float]:
    return balance.embedding_gradient(
        one.tokens[:, :0], one.logits, one.expert_ids, balancing.spec, balancing.device, parts.loss_factors,
        sequence_id=one.sequence,
    ).values  # fmt: skip


def _kept(balancing: Balancing, one: Routed) -> Ids:
    """The selection without the copies that devices have no room for."""
    ids = one.expert_ids
    if balancing.capacity_factor is None:
        return ids
    scores = np.take_along_axis(affinity(one.logits, balancing.spec), ids.astype(np.int64), axis=1)
    exempt = one.sequence % _NEVER_DROPPED == _NEVER_DROPPED - 1
    return balance.drop_over_capacity(ids, scores, balancing.device, balancing.capacity_factor, exempt)


def timed(parts: Parts, spec: RouterSpec, ids: Mapping[int, Ids], length: int) -> Row:
    """Put a routed batch through the layers: figures by the names of ``TIMED``.

    Args:
        parts: of the scenario.
        spec: the router that chose.
        ids: layer -> experts [T, K] of distinct tokens, -1 for dropped copies; the ranks' tokens repeat them in order.
        length: tokens of a sequence.
    """
    ranks, distinct = parts.fabric.n_ranks, min(len(one) for one in ids.values())
    per_rank = parts.workload.tokens_per_rank or max(1, distinct // ranks)
    rank_tokens = np.broadcast_to(np.asarray(per_rank, np.int64), ranks)
    token = np.arange(int(rank_tokens.sum()))
    distinct = min(distinct, len(token))
    batch = Batch(
        logits=None,
        bias={},
        expert_ids={layer: one[:distinct] for layer, one in ids.items()},
        rank_tokens=rank_tokens,
        part=listed((token % distinct).astype(np.int32), (token // length).astype(np.int32)),
        domain=np.zeros(distinct, np.int8),
        domain_names=("simulated",),
        distinct_tokens=distinct,
    )
    section = parts.workload.model_copy(update={"layers_simulated": None})
    own = replace(parts, router=spec, bias="zero", update_bias=False, workload=section)
    summary, ledger = summed_up(own, [route_step(own, initial_state(own, batch), batch)[0]])
    built = summary.build(ledger.shares(), False)
    return {name: built[name] for name in TIMED}


def recorded_rows(parts: Parts, run: Snapshots) -> list[Row]:
    """The recorded snapshots of a run as rows: loads as counted, traffic and time of the tokens that it kept.

    Raises:
        InputError: the run is of another number of experts than the scenario.
    """
    experts = run.counts.shape[-1]
    if experts != parts.router.n_experts:
        what = f"{run.name} has {experts} experts, the scenario {parts.router.n_experts}"
        raise InputError(what, "--fit", f"-o model.n_experts={experts}")
    rows = []
    for index, (step, peak) in enumerate(zip(run.steps.tolist(), run.max_over_mean().tolist(), strict=True)):
        row: Row = {"method": f"{run.name}, recorded", "step": step, "max_violation_global": peak - 1.0}
        row["expert_load_max_over_mean"] = peak
        if run.bias_spread is not None:
            row["bias_spread"] = float(run.bias_spread[index])
        if run.router is not None and run.experts is not None:
            row |= timed(parts, run.router, run.experts(index), EVALUATED[1])
        rows.append(row)
    return rows


def compare(
    runs: Sequence[Snapshots], constants: DynamicsConstants, fitted_on: Sequence[str], layers: int, seed: int
) -> list[Row]:
    """Simulate recorded runs with their own routers and losses, and say how far off, also of a null model.

    Returns one dictionary per run: ``name``, whether it was ``fitted``, the ``steps`` of its snapshots after the start,
    max/mean there ``recorded`` and ``simulated`` (mean over layers), ``factors`` between them, the spread of the bias
    ``bias_recorded`` and ``bias_simulated``, and as ``null`` the run with an expert loss whose record would be another
    guess, with ``null_factors``; None where there is none.
    """
    guess = next((run for run in runs if run.factors.expert), None)
    found = []
    for run in runs:
        if run.router is None:
            continue
        after = run.steps > 0
        simulated, spread = (values[after] for values in simulated_run(run, run.router, constants, layers, seed))
        recorded = run.max_over_mean()[after]
        one: Row = {
            "name": run.name, "fitted": run.name in fitted_on, "steps": run.steps[after].tolist(),
            "recorded": recorded.tolist(), "simulated": simulated.tolist(), "factors": _factors(simulated, recorded),
            "bias_recorded": [], "bias_simulated": [], "null": None, "null_factors": None,
        }  # fmt: skip
        if run.bias_spread is not None:
            one |= {"bias_recorded": run.bias_spread[after].tolist(), "bias_simulated": spread.tolist()}
        if guess not in (None, run) and run.balanced and np.array_equal(run.steps, guess.steps):
            one |= {"null": guess.name, "null_factors": _factors(guess.max_over_mean()[after], recorded)}
        found.append(one)
    return found


def simulated_run(
    run: Snapshots, router: RouterSpec, constants: DynamicsConstants, layers: int, seed: int
) -> tuple[Floats, Floats]:
    """Simulate a recorded run; return max/mean and the spread of the bias at its snapshots, [S], mean over layers."""
    method = Balancing(run.name, router, device_of(router), run.factors, run.bias_rate)
    rate, steps = run.recipe or (constants.learning_rate, int(run.steps[-1]))
    # Sequences are what makes loads of batches differ: a quarter of their tokens says as much.
    text, sequences = Text(run.batch_sequences, EVALUATED[1] // 4), run.sequences or EVALUATED[0]
    peak, spread = np.zeros((2, layers, len(run.steps)))
    for layer in range(layers):
        form = TokenForm(replace(constants, learning_rate=rate), method, steps, text, seed, layer)
        for index, step in enumerate(run.steps):
            while form.step < step:
                form.advance(form.batch())
            peak[layer, index] = 1.0 + _violation(form.evaluated(sequences, EVALUATED[1]))
            spread[layer, index] = np.ptp(form.bias)
    return peak.mean(axis=0), spread.mean(axis=0)


def _factors(guess: Floats, recorded: Floats) -> list[float]:
    return list(np.exp(np.abs(np.log(guess / recorded))).tolist())


def floors(parts: Parts, constants: DynamicsConstants) -> dict[str, float]:
    """Return the max/mean that an evaluation shows of perfectly even experts.

    ``sequences``: tokens of a sequence go together, so that a load scatters by ``sqrt(psi / sequences)`` and the
    largest of E lies that much times the mean maximum of E normals above 1. ``uniform_router``: tokens by themselves,
    which is far too low.
    """
    experts, (sequences, length) = parts.router.n_experts, EVALUATED
    scatter = (constants.sequence_variance / sequences) ** 0.5
    rng = parts.rng(_FLOOR_STAGE)
    uniform = balance.uniform_router_max_over_mean(sequences * length, experts, parts.router.top_k, rng)
    return {"sequences": 1.0 + mean_maximum_of_normals(experts) * scatter, "uniform_router": uniform}


def mean_maximum_of_normals(n: int) -> float:
    """Return the expected largest of n standard normals: 2.34 of 64."""
    above, below = quad(lambda x: 1.0 - ndtr(x) ** n, 0.0, 12.0)[0], quad(lambda x: ndtr(x) ** n, -12.0, 0.0)[0]
    return float(above - below)


def what_to_know(comparisons: Sequence[Row], fitted_on: Sequence[str]) -> list[str]:
    """Say in sentences what such numbers are worth."""
    said = [f"constants fitted on {', '.join(fitted_on)}; what was not compared with a record is an illustration"]
    if not fitted_on:
        said = [
            "an illustration: constants of moesim's own small model, which do not travel to another; "
            "--fit takes them from snapshots of this one"
        ]
    for one in comparisons:
        if one["null"] and median(one["factors"]) >= median(one["null_factors"]):
            said.append(f"{one['name']}: simulated no closer than {one['null']} was, as it was recorded")
    return said
