"""The sums of ``measure`` against plain Python and against those of the fused pass, and the losses made of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.balance import LossFactors, losses_in_balance, measure
from moesim.errors import InputError
from moesim.routing import RouterSpec, blocks, route, route_and_measure
from moesim.routing.fused import route_block
from tests.reference import losses as reference
from tests.reference import routing as reference_routing
from tests.reference.losses import losses_of_sums

QUICK = settings(deadline=None, max_examples=25, derandomize=True)
UNEVEN = np.repeat(np.arange(6), [30, 1, 9, 20, 4, 13])  # 77 experts in six groups
FACTORS = LossFactors(expert=0.3, device=0.5, communication=0.2, sequence=0.7, z=0.1)


def spec_of(kind, top_k, groups):
    """A router of 77 experts that the fused pass takes."""
    if groups == "none":
        return RouterSpec(kind, 77, top_k)
    if groups == "even":
        return RouterSpec(kind, 77, top_k, 7, 3)
    return RouterSpec(kind, 77, top_k, 6, 4, group_of_expert=UNEVEN[::-1].copy())


@QUICK
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["v1", "v2", "v3"]),
    top_k=st.integers(1, 8),
    groups=st.sampled_from(["none", "even", "uneven"]),
    biased=st.booleans(),
)
def test_the_sums_are_those_of_the_fused_pass(seed, kind, top_k, groups, biased):
    rng, spec = np.random.default_rng(seed), spec_of(kind, top_k, groups)
    n = int(rng.integers(1, 24))
    logits = (rng.normal(size=(n, 77)) * rng.choice([0.5, 2.0, 8.0])).astype(np.float32)
    bias = rng.normal(size=77) * 0.2 if biased and kind == "v3" else None
    given = {
        "weight": rng.integers(0, 4, n),
        "device_of_expert": rng.permutation(np.arange(77) % 5),
        "sequence_id": rng.integers(-2, 3, n),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "route_block", route_block)
        ids, _, fused = route_and_measure(logits, spec, bias, **given)
    counted = route(logits, RouterSpec("v3", 77, top_k)).expert_ids if kind == "v3" else ids
    slow = measure(logits, ids, spec, counted_ids=counted, **given)
    assert slow.weight == fused.weight == given["weight"].sum()
    assert (slow.load == fused.load).all() and (slow.received == fused.received).all()
    assert slow.affinity == pytest.approx(fused.affinity, rel=1e-6, abs=1e-12)
    assert slow.logsumexp_squared == pytest.approx(fused.logsumexp_squared, rel=1e-6, abs=1e-9)
    assert slow.gate_mass_lost == pytest.approx(fused.gate_mass_lost, abs=1e-6)
    for name in ("weight", "tokens"):
        assert (getattr(slow.sequences, name) == getattr(fused.sequences, name)).all()
    assert slow.sequences.product == pytest.approx(fused.sequences.product, rel=1e-6, abs=1e-12)
    assert slow.sequences.max_over_mean == pytest.approx(fused.sequences.max_over_mean, rel=1e-14)


@QUICK
@given(st.integers(0, 2**32), st.sampled_from(["softmax", "sigmoid"]))
def test_the_losses_of_the_sums_are_those_of_the_batch_written_out(seed, score):
    rng = np.random.default_rng(seed)
    spec = RouterSpec("v2", 6, 2, n_groups=3, top_groups=2, score=score)
    logits = rng.normal(size=(5, 6)) * 2
    ids = np.array([rng.permutation(6)[:2] for _ in logits], np.int32)
    counted = np.array([rng.permutation(6)[:2] for _ in logits], np.int32)
    device, weight = np.array([0, 0, 0, 2, 1, 1]), rng.integers(0, 4, 5)
    weight[0] += 1
    # Two sequences; whole sequences repeat, so that the batch can be written out.
    sequence = np.array([8, 3, 8, 3, 3])
    weight = np.where(sequence == 8, weight[0], weight[1])
    token = np.repeat(np.arange(5), weight)
    occurrence = np.concatenate([sequence[t] + 10 * np.arange(weight[t]) for t in range(5)]).tolist()
    x, chosen = logits[token].tolist(), ids[token].tolist()
    sums = measure(logits, ids, spec, weight=weight, device_of_expert=device, sequence_id=sequence, counted_ids=counted)
    assert losses_of_sums(sums, spec, device, FACTORS) == pytest.approx(
        {
            "expert_loss": reference.expert_loss(x, chosen, score, 0.3),
            "device_loss": reference.device_loss(x, chosen, score, device.tolist(), 0.5),
            "communication_loss": reference.communication_loss(x, chosen, score, device.tolist(), 2, 0.2),
            "sequence_loss": reference.sequence_loss(x, counted[token].tolist(), score, occurrence, 0.7),
            "z_loss": reference.z_loss(x, 0.1),
        },
        rel=1e-12,
    )
    lost = [reference_routing.gate_mass_lost(row, own, score) for row, own in zip(x, chosen, strict=True)]
    assert sums.gate_mass_lost == pytest.approx(sum(lost), rel=1e-12)
    within = [reference.sequence_imbalance(ids[sequence == s].tolist(), [s] * sum(sequence == s), 6) for s in (3, 8)]
    held = sums.sequences.weight > 0
    assert sums.sequences.max_over_mean[held] == pytest.approx(np.concatenate(within)[held], rel=1e-14)
    assert (sums.sequences.max_over_mean[~held] == 1).all()


def test_devices_and_sequences_are_measured_where_they_are_given():
    spec = RouterSpec("v1", 4, 2)
    sums = measure(np.zeros((3, 4)), [[0, 1], [1, 2], [1, -1]], spec)
    assert sums.load.tolist() == [1, 3, 1, 0] and sums.affinity.tolist() == [0.75] * 4
    assert sums.sequences is None and sums.received.size == 0
    # Nothing is lost of equal affinities but with the dropped copy, half of its token's.
    assert sums.gate_mass_lost == pytest.approx(0.5, rel=1e-14)
    assert sums.logsumexp_squared == pytest.approx(3 * np.log(4) ** 2, rel=1e-14)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"expert_ids": [[0], [1]]}, "expert_ids"),
        ({"counted_ids": [[0, 4], [0, 1]]}, "expert_ids"),
        ({"weight": [1.0, -1.0]}, "weight"),
        ({"sequence_id": [0.5, 1.0]}, "sequence_id"),
        ({"logits": [[0.0, 1.0, np.nan, 0.0]] * 2}, "logits"),
    ],
)
def test_arrays_that_do_not_describe_one_batch_are_refused(wrong, where):
    arguments = {"logits": np.zeros((2, 4)), "expert_ids": [[0, 1], [2, 3]], "spec": RouterSpec("v1", 4, 2), **wrong}
    with pytest.raises(InputError) as error:
        measure(**arguments)
    assert error.value.where == where


@pytest.mark.parametrize("form", ["paper", "document"])
def test_losses_in_balance_are_those_of_a_batch_that_loads_every_expert_device_and_sequence_alike(form):
    """Eight experts on four devices, each token takes both of one device, every device as often in each sequence."""
    spec, device = RouterSpec("v1", 8, 2, 4, 1), np.arange(8) // 2
    tokens, factors = np.arange(16), LossFactors(0.3, 0.5, 0.2, 0.7, 0.0, form=form)
    ids = np.stack([2 * (tokens % 4), 2 * (tokens % 4) + 1], axis=1)
    logits = np.where((ids[:, :, None] == np.arange(8)).any(axis=1), 2.0, -1.0)
    sums = measure(logits, ids, spec, device_of_expert=device, sequence_id=tokens // 8)
    found = losses_of_sums(sums, spec, device, factors)
    assert {name: found[name] for name in found if name != "z_loss"} == pytest.approx(
        losses_in_balance(spec, device, factors)
    )
