# ruff: noqa: E402
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moesim.record.moe import V1, V2, V3, Experts, GroupedMatmul, MoE, affinity, select
from moesim.routing import RouterSpec, route

pytestmark = pytest.mark.lab

ROUTERS = {"v1": V1, "v2": V2, "v3": V3}


@pytest.mark.parametrize("kind", ROUTERS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_model_selects_the_experts_that_the_simulator_selects(kind, with_bias):
    router = ROUTERS[kind]
    rng = np.random.default_rng(4)
    # Few distinct values: ties must go to the lowest id in both.
    logits = np.round(rng.normal(size=(500, 64)) * 4).astype(np.float16) / 4
    bias = (rng.integers(-3, 4, 64) / 16).astype(np.float32) if with_bias and kind == "v3" else np.zeros(64, "f4")
    scores = affinity(torch.from_numpy(logits).double(), router)
    ids = select(scores, torch.from_numpy(bias), router).numpy()
    spec = RouterSpec(
        kind=kind, n_experts=64, top_k=router.top_k, n_groups=router.n_groups, top_groups=router.top_groups,
        score=router.score, group_score=router.group_score, normalize=router.normalize, scale=router.scale,
    )  # fmt: skip
    assigned = route(logits, spec, bias=bias if bias.any() else None)
    np.testing.assert_array_equal(np.sort(ids), np.sort(assigned.expert_ids))


def test_a_masked_group_stays_out_whatever_its_bias():
    scores = torch.full((1, 64), 0.5, dtype=torch.float64)
    scores[0, :32] = 0.6
    bias = torch.full((64,), -5.0)
    assert select(scores, bias, V3).max() < 32


def test_grouped_products_and_their_gradients_are_those_of_separate_matrices():
    torch.manual_seed(0)
    counts = [3, 0, 4, 1]
    rows = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, 6, dtype=torch.float64, requires_grad=True)
    expert = torch.arange(4).repeat_interleave(torch.tensor(counts))
    expected = torch.einsum("na,nab->nb", rows, weight[expert])
    torch.testing.assert_close(GroupedMatmul.apply(rows, weight, counts), expected)
    assert torch.autograd.gradcheck(lambda r, w: GroupedMatmul.apply(r, w, counts), (rows, weight))


def test_a_tokens_output_is_the_gated_sum_of_its_experts():
    torch.manual_seed(1)
    experts = Experts(16, 8, 4).double()
    tokens = torch.randn(10, 8, dtype=torch.float64)
    ids = torch.stack([torch.randperm(16)[:3] for _ in range(10)])
    gates = torch.rand(10, 3, dtype=torch.float64)
    got = experts(tokens, ids, gates)
    for t in range(10):
        expected = torch.zeros(8, dtype=torch.float64)
        for e, gate in zip(ids[t], gates[t], strict=True):
            left, right = (tokens[t] @ experts.into[e]).chunk(2)
            expected += gate * (torch.nn.functional.silu(left) * right) @ experts.out[e]
        torch.testing.assert_close(got[t], expected)


def test_the_bias_moves_by_one_rate_towards_the_mean_load():
    block = MoE(V3, 64, 16, 8, 1)
    ids = torch.arange(8).repeat(16, 1)
    ids[:8, 0] = 63
    block.update_bias(ids, 0.01)
    block.update_bias(ids, 0.01)
    # The mean is 2 selections: experts 0 to 7 have more, 63 has 8, all others none.
    expected = torch.full((64,), 0.02)
    expected[:8] = expected[63] = -0.02
    torch.testing.assert_close(block.bias, expected)
    even = torch.arange(64).view(8, 8)
    block.update_bias(even, 0.01)
    torch.testing.assert_close(block.bias, expected)


def test_the_bias_steers_selection_and_not_the_gates():
    torch.manual_seed(2)
    block = MoE(V3, 64, 16, 8, 1).eval()
    tokens = torch.randn(5, 16)
    _, before = block(tokens)
    block.bias[7] = 5.0
    _, after = block(tokens)
    assert (after.ids == 7).any(dim=1).all()
    torch.testing.assert_close(before.scores, after.scores)


@pytest.mark.parametrize("kind", ROUTERS)
def test_the_router_learns_through_the_gates(kind):
    torch.manual_seed(3)
    block = MoE(ROUTERS[kind], 64, 16, 8, 1)
    out, routed = block(torch.randn(20, 16))
    out.square().sum().backward()
    touched = block.centroids.grad.abs().sum(1) > 0
    if ROUTERS[kind].score == "sigmoid":
        assert set(touched.nonzero().flatten().tolist()) == set(routed.ids.flatten().tolist())
    else:
        assert touched.all()
    used = block.experts.out.grad.abs().sum((1, 2)) > 0
    assert set(used.nonzero().flatten().tolist()) == set(routed.ids.flatten().tolist())


def test_an_evaluated_router_decides_on_the_very_numbers_that_are_recorded():
    torch.manual_seed(4)
    block = MoE(V1, 64, 16, 8, 2)
    tokens = torch.randn(30, 16)
    _, trained = block(tokens)
    _, recorded = block.eval()(tokens)
    torch.testing.assert_close(recorded.logits, trained.logits.half().double(), rtol=0, atol=0)
