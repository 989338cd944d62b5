import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.balance import communication_loss, device_loss, expert_loss, gradient, sequence_loss, z_loss
from moesim.errors import InputError
from moesim.routing import RouterSpec
from tests.reference import losses as reference

QUICK = settings(deadline=None, max_examples=25, derandomize=True)
TOKENS, EXPERTS, TOP_K = 7, 6, 2
SPECS = {
    "softmax": RouterSpec("v2", EXPERTS, TOP_K, n_groups=3, top_groups=2),
    "sigmoid": RouterSpec("v3", EXPERTS, TOP_K, n_groups=3, top_groups=2),
}


class Batch:
    """A small random batch, with uneven devices, some dropped copies and sequences in no order."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.logits = rng.normal(size=(TOKENS, EXPERTS)) * 2
        self.ids = np.array([rng.permutation(EXPERTS)[:TOP_K] for _ in range(TOKENS)], np.int32)
        self.ids[rng.random(self.ids.shape) < 0.1] = -1
        self.device = np.array([0, 0, 0, 3, 1, 1])
        self.sequence = np.array([7, 7, -2, 7, 40, -2, 40])
        self.weight = rng.integers(0, 4, TOKENS)
        self.weight[0] += 1
        # A sequence is repeated as a whole.
        self.occurrences = dict(zip([-2, 7, 40], rng.integers([1, 0, 0], [4, 3, 3]), strict=True))

    def losses(self, spec, **options):
        """Return the five losses, each as a function of logits."""
        return {
            "expert": lambda x: expert_loss(x, self.ids, spec, alpha=0.3, **options),
            "device": lambda x: device_loss(x, self.ids, spec, self.device, alpha=0.3, **options),
            "communication": lambda x: communication_loss(x, self.ids, spec, self.device, alpha=0.3, **options),
            "sequence": lambda x: sequence_loss(x, self.ids, spec, self.sequence, alpha=0.3, **options),
            "z": lambda x: z_loss(x, alpha=0.3, **options),
        }


@QUICK
@given(st.integers(0, 2**32), st.sampled_from(["softmax", "sigmoid"]))
def test_losses_are_the_sums_of_the_papers(seed, score):
    b, spec = Batch(seed), SPECS[score]
    x, ids, device, sequence = b.logits.tolist(), b.ids.tolist(), b.device.tolist(), b.sequence.tolist()
    wanted = {
        "expert": reference.expert_loss(x, ids, score, 0.3),
        "device": reference.device_loss(x, ids, score, device, 0.3),
        "communication": reference.communication_loss(x, ids, score, device, 2, 0.3),
        "sequence": reference.sequence_loss(x, ids, score, sequence, 0.3),
        "z": reference.z_loss(x, 0.3),
    }
    for name, loss in b.losses(spec).items():
        assert loss(b.logits).value == pytest.approx(wanted[name], rel=1e-12), name
    document = expert_loss(b.logits, b.ids, spec, alpha=0.3, form="document").value
    assert document == pytest.approx(reference.expert_loss(x, ids, score, 0.3, document=True), rel=1e-12)
    document = communication_loss(b.logits, b.ids, spec, b.device, alpha=0.3, form="document").value
    wanted_document = reference.communication_loss(x, ids, score, device, 2, 0.3, document=True)
    assert document == pytest.approx(wanted_document, rel=1e-12)


@QUICK
@given(st.integers(0, 2**32), st.sampled_from(["softmax", "sigmoid"]))
def test_a_weighted_batch_is_the_batch_written_out(seed, score):
    b, spec = Batch(seed), SPECS[score]
    expand = np.repeat(np.arange(TOKENS), b.weight)
    out = Batch(seed)
    out.logits, out.ids = b.logits[expand], b.ids[expand]
    for name in ("expert", "device", "communication", "z"):
        got = b.losses(spec, weight=b.weight)[name](b.logits)
        wanted = out.losses(spec)[name](out.logits)
        assert got.value == pytest.approx(wanted.value, rel=1e-12), name
        summed = np.zeros_like(b.logits)
        np.add.at(summed, expand, wanted.grad)
        assert got.grad == pytest.approx(summed, rel=1e-10, abs=1e-14), name


@QUICK
@given(st.integers(0, 2**32), st.sampled_from(["softmax", "sigmoid"]))
def test_a_repeated_sequence_counts_as_often_as_it_occurs(seed, score):
    b, spec = Batch(seed), SPECS[score]
    weight = np.array([b.occurrences[s] for s in b.sequence])
    got = sequence_loss(b.logits, b.ids, spec, b.sequence, alpha=0.3, weight=weight)
    token, occurrence = [], []
    for sequence, times in b.occurrences.items():
        for n in range(times):
            members = np.flatnonzero(b.sequence == sequence)
            token.extend(members)
            occurrence.extend([1000 * n + sequence] * len(members))
    wanted = sequence_loss(b.logits[token], b.ids[token], spec, occurrence, alpha=0.3)
    assert got.value == pytest.approx(wanted.value, rel=1e-12)
    summed = np.zeros_like(b.logits)
    np.add.at(summed, token, wanted.grad)
    assert got.grad == pytest.approx(summed, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["expert", "device", "communication", "sequence", "z"])
def test_gradients_are_central_differences(name, score, weighted):
    b = Batch(11)
    loss = b.losses(SPECS[score], weight=b.weight if weighted else None)[name]
    numeric = np.empty_like(b.logits)
    for index in np.ndindex(b.logits.shape):
        step = np.zeros_like(b.logits)
        step[index] = 1e-5
        numeric[index] = (loss(b.logits + step).value - loss(b.logits - step).value) / 2e-5
    assert loss(b.logits).grad == pytest.approx(numeric, rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_perfect_balance_costs_alpha_whatever_the_affinities_are(score):
    experts, top_k, devices = 12, 3, 4
    ids = (np.arange(24)[:, None] * top_k + np.arange(top_k)) % experts
    device = np.arange(experts) // 3
    # Three consecutive experts: every token reaches exactly one device, all devices equally often.
    spec = RouterSpec("v2", experts, top_k, n_groups=devices, top_groups=1, score=score)
    x = np.random.default_rng(1).normal(size=(24, experts)) * 3
    assert expert_loss(x, ids, spec, alpha=0.003).value == pytest.approx(0.003, rel=1e-12)
    document = expert_loss(x, ids, spec, alpha=0.003, form="document").value
    assert document == pytest.approx(0.003 / experts, rel=1e-12)
    assert device_loss(x, ids, spec, device, alpha=0.05).value == pytest.approx(0.05, rel=1e-12)
    assert communication_loss(x, ids, spec, device, alpha=0.02).value == pytest.approx(0.02, rel=1e-12)
    document = communication_loss(x, ids, spec, device, alpha=0.02, form="document").value
    assert document == pytest.approx(0.02 / devices, rel=1e-12)
    sequence = np.arange(24) // 4
    assert sequence_loss(x, ids, spec, sequence, alpha=1e-4).value == pytest.approx(1e-4, rel=1e-12)
    # A constant loss has no slope.
    assert np.abs(expert_loss(x, ids, spec, alpha=1.0).grad).max() < 1e-16


def test_tokens_that_reach_fewer_than_m_devices_cost_less_than_alpha():
    # M = 2 but each token stays on one of four devices: f'' = 1/2 everywhere.
    ids = np.array([[0, 1], [2, 3], [4, 5], [6, 7]])
    spec = RouterSpec("v2", 8, 2, n_groups=4, top_groups=2)
    loss = communication_loss(np.zeros((4, 8)), ids, spec, np.arange(8) // 2, alpha=0.02)
    assert loss.value == pytest.approx(0.01, rel=1e-14)


def test_without_groups_a_token_may_reach_k_devices():
    ids = np.array([[0, 2], [4, 6], [1, 3], [5, 7]])
    device = np.arange(8) // 2
    loss = communication_loss(np.zeros((4, 8)), ids, RouterSpec("v1", 8, 2), device, alpha=0.02)
    assert loss.value == pytest.approx(0.02, rel=1e-14)


def test_piling_every_token_on_the_favourite_expert_costs_up_to_n_experts_times_alpha():
    logits = np.zeros((5, 8))
    logits[:, 3] = 200.0
    loss = expert_loss(logits, np.full((5, 1), 3), RouterSpec("v1", 8, 1), alpha=0.003)
    assert loss.value == pytest.approx(8 * 0.003, rel=1e-14)


def test_the_expert_loss_pushes_an_overloaded_expert_down():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(50, 8))
    logits[:, 3] += 3
    ids = np.argsort(-logits, axis=1)[:, :2]
    for kind in ("v1", "v3"):
        assert (expert_loss(logits, ids, RouterSpec(kind, 8, 2), alpha=1.0).grad[:, 3] > 0).all()


def test_device_numbers_are_names_only():
    b = Batch(3)
    for loss in (device_loss, communication_loss):
        one = loss(b.logits, b.ids, SPECS["softmax"], b.device, alpha=1.0)
        other = loss(b.logits, b.ids, SPECS["softmax"], 100 - 9 * b.device, alpha=1.0)
        assert one.value == pytest.approx(other.value, rel=1e-14)


def test_sigmoids_that_all_underflow_are_normalised_as_their_limit_the_softmax():
    b = Batch(4)
    soft = expert_loss(b.logits, b.ids, SPECS["softmax"], alpha=1.0)
    low = expert_loss(b.logits - 900, b.ids, SPECS["sigmoid"], alpha=1.0)
    assert low.value == pytest.approx(soft.value, rel=1e-10)
    assert low.grad == pytest.approx(soft.grad, rel=1e-9, abs=1e-13)


def test_z_loss_of_large_logits_does_not_overflow():
    logits = np.array([[800.0, 800.0], [-900.0, -900.0]])
    loss = z_loss(logits, alpha=1.0)
    assert loss.value == pytest.approx(((800 + np.log(2)) ** 2 + (900 - np.log(2)) ** 2) / 2, rel=1e-14)


def test_blocks_and_a_gradient_not_asked_for_change_no_value(monkeypatch):
    b = Batch(5)
    for spec in SPECS.values():
        whole = {name: loss(b.logits) for name, loss in b.losses(spec).items()}
        with monkeypatch.context() as patch:
            patch.setattr(gradient, "LOGITS_PER_BLOCK", 2 * EXPERTS)
            for name, loss in b.losses(spec).items():
                assert loss(b.logits).value == pytest.approx(whole[name].value, rel=1e-13)
                assert loss(b.logits).grad == pytest.approx(whole[name].grad, rel=1e-13)
            for name, loss in b.losses(spec, with_grad=False).items():
                assert loss(b.logits).value == pytest.approx(whole[name].value, rel=1e-13)
                assert loss(b.logits).grad is None
            b.logits[5, 2], kept = np.nan, b.logits[5, 2]
            for loss in b.losses(spec).values():
                with pytest.raises(InputError, match="token 5 for expert 2"):
                    loss(b.logits)
            b.logits[5, 2] = kept


def test_the_documents_form_exists_for_the_expert_and_communication_losses_only():
    b, spec = Batch(6), SPECS["softmax"]
    for name in ("device", "sequence", "z"):
        with pytest.raises(InputError, match="document is for expert and communication"):
            b.losses(spec, form="document")[name](b.logits)
    for name in ("expert", "communication"):
        with pytest.raises(InputError, match="use paper or document"):
            b.losses(spec, form="seed")[name](b.logits)


def test_arrays_that_do_not_describe_one_batch_are_refused():
    b, spec = Batch(7), SPECS["softmax"]
    wrong = {
        "logits": lambda: expert_loss(b.logits[:, 1:], b.ids, spec, alpha=1.0),
        "expert_ids": lambda: expert_loss(b.logits[1:], b.ids, spec, alpha=1.0),
        "weight": lambda: expert_loss(b.logits, b.ids, spec, alpha=1.0, weight=np.zeros(TOKENS)),
        "device_of_expert": lambda: device_loss(b.logits, b.ids, spec, b.device[1:], alpha=1.0),
        "sequence_id": lambda: sequence_loss(b.logits, b.ids, spec, b.sequence * 1.0, alpha=1.0),
    }
    for where, call in wrong.items():
        with pytest.raises(InputError) as error:
            call()
        assert error.value.where == where
    with pytest.raises(InputError, match=r"logits have shape \(7,\)"):
        z_loss(b.logits[:, 0], alpha=1.0)
