"""The balance study: rows over steps with traffic and time, recorded runs beside, constants from snapshots."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moesim.balance import LossFactors, Text, shipped_constants
from moesim.errors import InputError
from moesim.layer import build_parts
from moesim.routing import RouterSpec
from moesim.run.balance_fit import fit
from moesim.run.balance_snapshots import Snapshots, read_snapshots
from moesim.run.balance_study import (
    TIMED,
    compare,
    floors,
    mean_maximum_of_normals,
    methods_of,
    recorded_rows,
    study_method,
    timed,
    what_to_know,
)
from tests.run.small import EXPERTS, RANKS, TOP_K, run_ids, scenario

SHIPPED = shipped_constants()


def random_experts(tokens):
    rng = np.random.default_rng(1)
    return np.stack([rng.permutation(EXPERTS)[:TOP_K] for _ in range(tokens)]).astype(np.int32)


def flame_folder(folder, steps=(100, 200, 400), n_layers=2, tokens=256, seed=0):
    """Checkpoints as FLAME-MoE publishes them, popularity growing from step to step; returns their counts too."""
    rng, counts = np.random.default_rng(seed), []
    popular = rng.standard_normal((n_layers, EXPERTS))
    for number, step in enumerate(steps):
        place, of_step = folder / f"iter_{step:04}", []
        place.mkdir(parents=True)
        for layer in range(n_layers):
            keys = 0.4 * (number + 1) * popular[layer] + rng.gumbel(size=(tokens, EXPERTS))
            ids = np.argsort(-keys, axis=1)[:, :TOP_K].astype(np.int16)
            scores = np.full(ids.shape, 0.25, np.float16)
            lists = {"scores": pa.array(scores.tolist(), pa.list_(pa.float16())),
                     "indices": pa.array(ids.tolist(), pa.list_(pa.int16()))}  # fmt: skip
            pq.write_table(pa.table(lists), place / f"layer_{layer + 1:02}.parquet")
            of_step.append(np.bincount(ids.ravel(), minlength=EXPERTS))
        counts.append(of_step)
    return folder, np.array(counts)


def test_every_method_has_its_rows_on_the_clock():
    parts = build_parts(scenario("routing.top_groups=2"))
    for method in methods_of(parts, ["none", "v1", "v2", "v3"], False, False):
        rows = study_method(parts, method, SHIPPED, Text(4, 16), steps=5, every=2, layers=2)
        assert [row["step"] for row in rows] == [0, 2, 4, 5]
        assert all(row["method"] == method.name and row["layer_time_s"] > 0 for row in rows)
        assert all(row["dispatch_time_s"] + row["combine_time_s"] < row["layer_time_s"] for row in rows)
        assert all(row["expert_load_max_over_mean"] == pytest.approx(1 + row["max_violation_global"]) for row in rows)
        assert any(row["dropped_share"] for row in rows) == (method.name == "v2")
        assert (rows[-1]["bias_spread"] > 0) == (method.name == "v3")
        assert (rows[0]["gate_mass_lost"] > 1e-6) == (method.name in ("v2", "v3"))


def test_a_step_costs_on_the_wires_what_a_run_of_its_experts_costs(tmp_path):
    ids = random_experts(64 * RANKS)
    run = run_ids(tmp_path, ids, 64).summary
    parts = build_parts(scenario("routing.kind=v1", "routing.groups=1", "routing.top_groups=1"))
    found = timed(parts, parts.router, {0: ids}, 64)
    for name in TIMED:
        assert found[name] == run[name]


def test_dropped_copies_are_off_the_wires():
    parts = build_parts(scenario("workload.tokens_per_rank=4096"))
    ids = random_experts(512)
    whole = timed(parts, parts.router, {0: ids}, 64)
    ids[:, -1] = -1
    less = timed(parts, parts.router, {0: ids}, 64)
    assert less["rank_copies_per_token"] < whole["rank_copies_per_token"]
    assert less["dispatch_time_s"] < whole["dispatch_time_s"]


def test_methods_take_the_scenarios_groups_or_the_published_ones():
    parts = build_parts(scenario())
    v2, v3 = methods_of(parts, ["v2", "v3"], False, False)
    assert v3.spec is parts.router and (v2.spec.n_groups, v2.spec.top_groups) == (8, 4)
    plain = build_parts(scenario("routing.kind=v1", "routing.groups=1", "routing.top_groups=1"))
    v2, v3 = methods_of(plain, ["v2", "v3"], False, False)
    assert [one.spec.top_groups for one in (v2, v3)] == [3, 4] and v2.capacity_factor == 1.0
    assert not methods_of(plain, ["v3"], True, True)[0].spec.limited
    with pytest.raises(InputError, match="no method 'v4'"):
        methods_of(parts, ["v4"], False, False)


def test_checkpoints_of_recorded_routing_are_snapshots(tmp_path):
    folder, counts = flame_folder(tmp_path / "actives")
    run = read_snapshots(str(folder), EXPERTS)
    assert run.steps.tolist() == [100, 200, 400] and (run.counts == counts).all()
    rows = recorded_rows(build_parts(scenario()), run)
    peaks = (counts.max(axis=-1) / counts.mean(axis=-1)).mean(axis=-1)
    assert [row["expert_load_max_over_mean"] for row in rows] == pytest.approx(peaks)
    assert all(row["layer_time_s"] > 0 for row in rows)
    with pytest.raises(InputError, match="32 experts, the scenario 64"):
        recorded_rows(build_parts(scenario("model.n_experts=64")), run)


def test_a_recording_is_read_with_what_it_was_trained_with():
    run = read_snapshots("tiny-v3")
    assert run.steps.tolist() == [0, 25, 74, 222, 667, 2000] and run.recipe == (0.002, 2000)
    assert run.bias_rate == 0.001 and run.factors == LossFactors(0.0, 0.0, 0.0, 1e-4, 0.0)
    assert run.router.top_groups == 4 and run.sequences == 48 and run.balanced
    assert run.bias_spread[1:3] == pytest.approx([0.05, 0.1467], abs=1e-3)
    none = read_snapshots("tiny-none")
    assert not none.balanced and none.bias_spread is None
    assert none.sequence_variance == pytest.approx(SHIPPED.sequence_variance, abs=1e-3)
    assert none.spread == pytest.approx(SHIPPED.spread, abs=1e-3)


def test_what_has_no_steps_is_no_run(tmp_path):
    folder, _ = flame_folder(tmp_path / "one", steps=(100,))
    with pytest.raises(InputError, match="no training steps"):
        read_snapshots(str(folder), EXPERTS)
    counts = tmp_path / "counts.csv"
    counts.write_text("layer_id,expert_id,count\n" + "".join(f"0,{e},{e + 1}\n" for e in range(EXPERTS)))
    with pytest.raises(InputError, match="at least two"):
        read_snapshots(str(counts), EXPERTS)


def drifting(name, constants, factors=None, steps=(0, 20, 60, 150), experts=32):
    """Snapshots that the closed form itself makes with known constants."""
    from moesim.balance import NO_LOSS, Balancing, OffsetForm
    from moesim.run.balance_fit import device_of

    spec = RouterSpec("v1", experts, 4)
    form = OffsetForm(constants, Balancing(name, spec, device_of(spec), factors or NO_LOSS), steps[-1], (40,), 77)
    counts = []
    for step in steps:
        while form.step < step:
            form.advance(8)
        counts.append(np.round(1000 * form.loads()).astype(np.int64))
    return Snapshots(name, np.array(steps), np.array(counts), spec, factors or NO_LOSS, recipe=(0.002, steps[-1]))


def test_a_fit_finds_what_made_the_snapshots():
    true = replace(SHIPPED, early_drift=6.0, late_drift=0.9, gain=600.0)
    losses = LossFactors(0.01, 0.0, 0.0, 0.0, 0.0)
    runs = [drifting("own", true), drifting("own-v1", true, losses)]
    constants, used = fit(runs)
    assert used == ("own", "own-v1") and constants.sources["gain"] == "fitted on own-v1"
    # What the loads say well is how far they go, not each constant by itself.
    again = [drifting("own", constants), drifting("own-v1", constants, losses)]
    for before, after in zip(runs, again, strict=True):
        assert after.max_over_mean()[1:] == pytest.approx(before.max_over_mean()[1:], rel=0.2)
    shipped = drifting("own", SHIPPED)
    assert np.abs(np.log(shipped.max_over_mean() / runs[0].max_over_mean())).max() > 0.5
    with pytest.raises(InputError, match="different numbers"):
        fit([runs[0], drifting("other", true, experts=16)])


def test_errors_stand_beside_those_of_another_run_as_it_was():
    base = drifting("none", SHIPPED, steps=(0, 5, 10))
    losses = replace(base, name="v1", factors=LossFactors(0.003, 0.0, 0.0, 0.0, 0.0))
    biased = replace(
        base, name="v3", counts=base.counts[:, ::-1], bias_rate=0.001, bias_spread=np.array([0, 0.01, 0.02])
    )
    first, second, third = compare([base, losses, biased], SHIPPED, ("none",), 1, 0)
    assert first["fitted"] and not second["fitted"] and first["null"] is None and second["null"] is None
    assert third["null"] == "v1" and third["null_factors"] == pytest.approx([1.0, 1.0])
    assert third["bias_recorded"] == [0.01, 0.02] and len(third["bias_simulated"]) == 2
    assert third["factors"] == pytest.approx(
        np.exp(np.abs(np.log(np.array(third["simulated"]) / third["recorded"]))).tolist()
    )
    said = what_to_know([third], ("none",))
    assert "fitted on none" in said[0] and "no closer than v1" in said[1]
    assert "illustration" in what_to_know([], ())[0]


def test_the_floor_of_an_evaluation_is_that_of_sequences():
    assert mean_maximum_of_normals(64) == pytest.approx(2.344, abs=0.001)
    drawn = np.random.default_rng(0).standard_normal((20_000, 16)).max(axis=1).mean()
    assert mean_maximum_of_normals(16) == pytest.approx(drawn, abs=0.02)
    assert mean_maximum_of_normals(2) == pytest.approx(1 / np.sqrt(np.pi), abs=1e-6)
    found = floors(build_parts(scenario("model.n_experts=64", "routing.top_k=8")), SHIPPED)
    assert found["sequences"] == pytest.approx(1.27, abs=0.01) and found["uniform_router"] == pytest.approx(
        1.06, abs=0.01
    )
