"""Constants of the balance dynamics from a run's own snapshots, in the closed form, which takes seconds.

Spreads of logits and the variance between sequences are read off; the four constants of the drift are searched such
that the offset form meets max/mean of the loads and how far popularity persists from snapshot to snapshot. What a run
with losses adds is one number, the gain. A run that something balanced gives only its first half of snapshots to the
drift; the others are predicted.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import ndtri

from moesim.balance import Balancing, DynamicsConstants, LossFactors, OffsetForm, shipped_constants
from moesim.errors import InputError
from moesim.routing import RouterSpec
from moesim.run.balance_snapshots import Floats, Snapshots

_DRIFT = ("early_drift", "early_steps", "late_drift", "turn_steps")
# Candidates that are tried at once and layers of each; fewer where loads act back, which takes a solution a step.
_SIZE, _SIZE_BALANCED = (96, 24), (24, 12)
_SEED = 20_250_101
# A correlation that is off by this much weighs as much as a load that is off by a factor of e^0.1.
_PERSISTENCE = 0.2
_LOAD = 0.1


def device_of(spec: RouterSpec) -> Any:
    """Return the devices of the losses: the router's groups, or eight contiguous ones."""
    n = spec.n_groups if spec.n_groups > 1 else min(8, spec.n_experts)
    return np.repeat(np.arange(n), [len(part) for part in np.array_split(np.arange(spec.n_experts), n)])


def fit(
    runs: Sequence[Snapshots], say: Callable[[str], None] = lambda _: None
) -> tuple[DynamicsConstants, tuple[str, ...]]:
    """Fit the constants on snapshots of runs of one model; return them and the names of the runs that were used.

    The drift comes from the first run that nothing balanced, or else from the first run's first half; the gain from
    the first run without groups that losses balanced, if there is one.

    Raises:
        InputError: no runs, or runs of models with different experts.
    """
    if not runs:
        raise InputError("nothing to fit", "--fit", "give snapshots of a run")
    if len({run.counts.shape[-1] for run in runs}) > 1:
        raise InputError("these runs have different numbers of experts", "--fit", "give runs of one model")
    base = next((run for run in runs if not run.balanced), runs[0])
    constants = _read_off(base)
    after = np.flatnonzero(base.steps > 0)
    used = after if not base.balanced else after[: max(1, len(after) // 2)]
    say(f"fitting the drift on {base.name}")
    constants = _fit_drift(constants, base, used)
    with_loss = next((run for run in runs if run.factors.expert and not _limited(run)), None)
    if with_loss is not None:
        say(f"fitting the gain on {with_loss.name}")
        constants = _fit_gain(constants, with_loss)
    return constants, tuple(dict.fromkeys(run.name for run in (base, with_loss) if run is not None))


def _limited(run: Snapshots) -> bool:
    return run.router is not None and run.router.limited


def _read_off(run: Snapshots) -> DynamicsConstants:
    """Constants that the snapshots say themselves, the others as shipped."""
    shipped = shipped_constants()
    changes: dict[str, Any] = {}
    if run.spread is not None:
        changes = {"spread": tuple(run.spread.tolist()), "spread_steps": tuple(map(float, run.steps))}
    if run.recipe is not None:
        changes["learning_rate"] = run.recipe[0]
    if run.sequence_variance is not None and run.domain_share is not None:
        # The variance between sequences grows with what their tokens share, within a few percent in proportion.
        share = min(0.95, shipped.sequence_share * run.sequence_variance / shipped.sequence_variance)
        changes |= {"sequence_variance": run.sequence_variance, "domain_share": run.domain_share}
        changes["sequence_share"] = share
    return replace(shipped, **changes, sources={**shipped.sources, **dict.fromkeys(changes, f"read from {run.name}")})


def _fit_drift(constants: DynamicsConstants, run: Snapshots, used: Any) -> DynamicsConstants:
    """Search the four constants of the drift, on random numbers that all candidates share."""
    rng, best = np.random.default_rng(_SEED), np.array([float(getattr(constants, name)) for name in _DRIFT])
    wanted, persistent = np.log(run.max_over_mean()[used]), _persistence(_probit(run)[used])
    size = _SIZE_BALANCED if run.balanced else _SIZE
    for reach in (4.0, 1.8, 1.3):
        tried = best * reach ** rng.uniform(-1.0, 1.0, (size[0], len(_DRIFT)))
        tried[0] = best
        named: dict[str, Any] = {name: tried[:, i, None, None] for i, name in enumerate(_DRIFT)}
        loads = _seen_loads(replace(constants, **named), run, used, size)
        peak = (loads.max(axis=-1) / loads.mean(axis=-1)).mean(axis=-1)
        found = _persistence(_to_probit(loads, run))
        miss = (((np.log(peak) - wanted[:, None]) / _LOAD) ** 2).sum(axis=0)
        miss += (((found - persistent[:, None]) / _PERSISTENCE) ** 2).sum(axis=0)
        best = tried[int(np.argmin(miss))]
    fitted: dict[str, Any] = dict(zip(_DRIFT, map(float, best), strict=True))
    return replace(constants, **fitted, sources={**constants.sources, **dict.fromkeys(_DRIFT, f"fitted on {run.name}")})


def _fit_gain(constants: DynamicsConstants, run: Snapshots) -> DynamicsConstants:
    """Search the one constant of the losses' pull."""
    used = np.flatnonzero(run.steps > 0)
    wanted, best, n = np.log(run.max_over_mean()[used]), float(constants.gain), 9
    for reach in (4.0, 1.5):
        tried: Any = best * reach ** np.linspace(-1.0, 1.0, n)
        loads = _seen_loads(replace(constants, gain=tried[:, None, None]), run, used, (n, 2 * _SIZE[1]))
        peak = (loads.max(axis=-1) / loads.mean(axis=-1)).mean(axis=-1)
        best = float(tried[int(np.argmin((np.abs(np.log(peak) - wanted[:, None])).sum(axis=0)))])
    return replace(constants, gain=best, sources={**constants.sources, "gain": f"fitted on {run.name}"})


def _seen_loads(constants: DynamicsConstants, run: Snapshots, used: Any, layers: tuple[int, int]) -> Floats:
    """Loads as an evaluation sees them at the used snapshots, [S, candidates, layers, E]."""
    router = run.router or RouterSpec("v1", n_experts=run.counts.shape[-1], top_k=8)
    spec = RouterSpec(router.kind, router.n_experts, router.top_k, score=router.score)
    losses = LossFactors(run.factors.expert, run.factors.device, 0.0, 0.0, 0.0)
    balancing = Balancing(run.name, spec, device_of(spec), losses, run.bias_rate)
    steps = run.recipe[1] if run.recipe is not None else int(run.steps[-1])
    form, seen = OffsetForm(constants, balancing, steps, layers, _SEED), []
    for step in run.steps[used]:
        while form.step < step:
            form.advance(run.batch_sequences)
        seen.append(form.seen(run.sequences or 1_000_000))
    return np.array(seen)


def _probit(run: Snapshots) -> Floats:
    return _to_probit(run.counts / run.counts.mean(axis=-1, keepdims=True), run)


def _to_probit(loads: Floats, run: Snapshots) -> Floats:
    """What a Gaussian would have to exceed for these loads over the mean, [..., E]: popularity without its limits."""
    share = loads * ((run.router.top_k if run.router is not None else 8) / loads.shape[-1])
    return np.asarray(ndtri(np.clip(share, 1e-3, 1.0 - 1e-3)), dtype=np.float64)


def _persistence(popularity: Floats) -> Floats:
    """Correlation of popularity [S, ..., L, E] between neighbouring snapshots, [S - 1, ...], mean over layers."""
    centred = popularity - popularity.mean(axis=-1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-12)
    return np.asarray((unit[1:] * unit[:-1]).sum(axis=-1).mean(axis=-1), dtype=np.float64)
