# ruff: noqa: E402
"""Every kernel against a reference of its own kind; a wrong one is found by the check that each point goes through."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moesim.profile.grid import cpu_sizes, grid
from moesim.profile.kernels import build, expert_gemm, fp8, moving
from moesim.profile.kernels.case import BF16, Case, Draw, dequantized, relative_error, rowwise, some_rows
from moesim.profile.kernels.router import reference_gates, select
from moesim.profile.point_measurement import rows_of
from moesim.profile.points import LAYERS, Point
from moesim.profile.timing import Samples
from moesim.profile.work import Peaks
from moesim.routing import RouterSpec, route

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("one_thread")]

POINTS = [point for point in grid(cpu_sizes()) if point.level == 0]
KINDS = {(point.kernel, point.impl, point.dtype, point.load_shape): point for point in POINTS}


class Stopwatch:
    """A timer that runs each call once and says three times."""

    def __init__(self):
        self.asked = []

    def measure(self, call, sets, cold, filled, chained):
        self.asked.append((len(sets), cold, filled, chained))
        call(*sets[-1])
        return Samples([1.0, 2.0, 3.0], "clock")


def rows(point, timer=None, peaks=None):
    return rows_of(point, "cpu", "a CPU", 2 << 20, timer or Stopwatch(), peaks)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(filter(None, kind)))
def test_each_kernel_is_right_or_refused(kind):
    found = rows(KINDS[kind])
    kernel, impl, dtype, _ = kind
    # The CPU has no grouped fp8 GEMM, no blocks of 128, no graphs.
    refused = (kernel.startswith(("grouped", "expert")) and dtype == "fp8") or impl == "torch-block"
    refused |= kernel == "launch" and KINDS[kind].variant == "graph"
    for row in found:
        assert row["status"].startswith("unsupported: ") if refused else row["status"] == "ok"
        assert bool(row["median_us"]) is not refused


def test_a_row_has_the_numbers_of_its_point():
    point = Point("grouped_gemm_up", "torch", "bf16", "v3", 40, 4, 256, 128, load_shape="zipf1.2")
    cold, hot = rows(point, peaks=Peaks(1e12, 2e12, 1e9))
    flops, moved = 2 * 40 * 256 * 256, 2 * (4 * 256 * 256 + 40 * 512)
    assert (cold["cache"], hot["cache"]) == ("cold", "hot")
    assert (float(cold["flops"]), float(cold["bytes"]), cold["n"]) == (flops, moved, "3")
    assert float(cold["median_us"]) == 2.0
    assert float(cold["tflops"]) == pytest.approx(flops / 2e-6 / 1e12, rel=1e-5)
    assert float(cold["gbps"]) == pytest.approx(moved / 2e-6 / 1e9, rel=1e-5)
    assert float(cold["sol_us"]) == pytest.approx(moved / 1e9 * 1e6, rel=1e-5)
    assert float(cold["util"]) == pytest.approx(moved / 1e9 * 1e6 / 2, rel=1e-5)
    assert (cold["largest_load"], cold["experts_hit"], cold["tokens_per_expert"]) == ("21", "4", "10")
    assert 0 < float(cold["max_rel_err"]) < 0.01
    assert cold["device"] == "a CPU"


@pytest.mark.parametrize("kernel", ["grouped_gemm_down", "router", "permute", "sort", "mla_decode", "quantize_fp8"])
def test_a_wrong_kernel_is_not_timed(monkeypatch, kernel):
    point = next(point for point in POINTS if point.kernel == kernel and (point.tokens > 1 or point.batch > 1))

    def spoilt(point, draw):
        case = build(point, draw)
        wrong = {"sort": lambda out: (out[0], out[1].flip(0)), "router": lambda out: (*out[:2], out[2] * 1.5)}
        last = wrong.get(kernel, lambda out: (out[0], out[1] * 2) if isinstance(out, tuple) else out.roll(1, 0) + 1)
        return replace(case, call=lambda *args: last(case.call(*args)))

    monkeypatch.setattr("moesim.profile.point_measurement.build", spoilt)
    timer = Stopwatch()
    for row in rows(point, timer):
        assert row["status"].startswith("wrong: error ")
        assert row["median_us"] == ""
        assert not float(row["max_rel_err"]) < 0.05
    assert timer.asked == []


def test_what_breaks_while_it_is_timed_is_a_row():
    class Broken:
        def measure(self, *given):
            raise RuntimeError("\n  CUDA error: \x1b[31mout of order\nmore")

    for row in rows(POINTS[0], Broken()):
        assert row["status"] == "failed: RuntimeError: CUDA error: ?[31mout of order"


def test_a_result_that_is_not_finite_is_wrong(monkeypatch):
    case = Case(lambda: (torch.ones(2),), lambda ones: ones * torch.nan, lambda a, out: relative_error(out, a[0]), 0.1)
    monkeypatch.setattr("moesim.profile.point_measurement.build", lambda point, draw: case)
    assert rows(POINTS[0])[0]["status"] == "wrong: error inf above 0.1"


def test_cold_inputs_fill_the_cache_and_hot_ones_need_one_set():
    timer = Stopwatch()
    rows(Point("copy", dtype="", tokens=1 << 18), timer)
    assert timer.asked == [(16, True, True, True), (16, False, True, True)]
    timer = Stopwatch()
    rows(Point("copy", dtype="", tokens=4096), timer)
    assert timer.asked == [(64, True, False, True), (64, False, False, True)]
    timer = Stopwatch()
    rows(Point("launch", dtype="", variant="eager", batch=3), timer)
    assert timer.asked == [(1, False, False, False)]


@pytest.mark.parametrize("variant", ["v1", "v2", "v3"])
def test_the_router_chooses_as_the_simulators_own(variant):
    layer = LAYERS[variant]
    draw = Draw("cpu", 3)
    logits, bias = draw.normal(200, layer.n_experts, dtype=torch.float32), draw.normal(layer.n_experts, scale=0.01)
    bias = bias.float()
    ids, gates = select(logits, bias, layer)
    order = ids.argsort(dim=-1)
    limits = {} if layer.n_groups == 1 else {"n_groups": layer.n_groups, "top_groups": layer.top_groups}
    spec = RouterSpec(kind=variant, n_experts=layer.n_experts, top_k=layer.top_k, scale=layer.scale, **limits)
    theirs = route(logits.double().numpy(), spec, bias=bias.double().numpy() if variant == "v3" else None)
    by_id = np.argsort(theirs.expert_ids, axis=1)
    np.testing.assert_array_equal(ids.gather(1, order).numpy(), np.take_along_axis(theirs.expert_ids, by_id, 1))
    np.testing.assert_allclose(gates.gather(1, order).numpy(), np.take_along_axis(theirs.gates, by_id, 1), rtol=1e-5)
    np.testing.assert_allclose(reference_gates(logits, bias, layer).numpy(), np.sort(theirs.gates, axis=1), rtol=1e-6)


@pytest.mark.parametrize("loads", [[5, 0, 7, 1], [13, 0, 0, 0], [0, 0, 0, 13]])
def test_grouped_gemms_give_each_row_the_weight_of_its_expert(loads):
    # Integers are exact in bf16 and their sums in float32: no tolerance.
    rng = np.random.default_rng(0)
    x, w = rng.integers(-2, 3, (13, 16)), rng.integers(-2, 3, (4, 8, 16))
    ends = torch.tensor(np.cumsum(loads), dtype=torch.int32)
    ours = expert_gemm._product((torch.tensor(x).to(BF16),), (torch.tensor(w).to(BF16),), ends)
    owner = np.repeat(np.arange(4), loads)
    np.testing.assert_array_equal(ours.float().numpy(), np.einsum("mk,mnk->mn", x, w[owner]))
    taken = list(range(13))
    reference = expert_gemm._reference(torch.tensor(x).double(), (torch.tensor(w).double(),), loads, taken, dequantized)
    np.testing.assert_array_equal(reference.numpy(), np.einsum("mk,mnk->mn", x, w[owner]))


def test_fp8_with_one_scale_per_row_loses_three_bits_of_mantissa_at_most():
    values = Draw("cpu", 0).normal(8, 256)
    cast, scale = rowwise(values)
    off = (dequantized(cast, scale) - values.double()).abs() / values.double().abs().amax(-1, keepdim=True)
    assert 0 < off.max() <= 16 / 448 + 1e-6  # half a step of the top binade
    assert cast.float().abs().amax(-1).tolist() == [448.0] * 8


def test_blocks_of_128_have_scales_of_their_own():
    draw = Draw("cpu", 0)
    rows_, weights = draw.normal(6, 384), draw.normal(2, 256, 384)
    rows_[:, :128] *= 1000
    cast, scale = fp8.block_rows(rows_)
    assert scale.shape == (6, 3)
    assert scale.stride() == (1, 6)
    assert (fp8.block_dequantized(cast, scale) - rows_).abs()[:, 128:].max() < 0.3
    cast, scale = fp8.block_weights(weights)
    assert scale.shape == (2, 2, 3)
    np.testing.assert_allclose(
        scale.numpy() * 448, weights.float().view(2, 2, 128, 3, 128).abs().amax((2, 4)).numpy(), rtol=1e-6
    )
    assert relative_error(fp8.block_dequantized(cast, scale), weights) < 2**-4


def test_both_forms_of_mla_decode_are_one_attention():
    # Absorbing the projections changes the order of products only: q (W_k c) = (W_k^T q) c.
    draw = Draw("cpu", 1)
    batch, kv, heads = 2, 24, 3
    point = Point("mla_decode", "unabsorbed", tokens=1, batch=batch, kv_len=kv, heads=heads)
    queries, cache, rebuild = build(point, draw).inputs()
    heads_out = build(point, draw).call(queries, cache, rebuild)
    weights = rebuild.view(heads, 256, 512)
    latent_queries = torch.einsum("bhd,hdc->bhc", queries[:, :, 0, :128], weights[:, :128])
    latent = build(replace(point, impl="absorbed"), draw).call(
        torch.cat((latent_queries, queries[:, :, 0, 128:]), dim=-1), cache
    )
    projected = torch.einsum("bhc,hdc->bhd", latent, weights[:, 128:])
    assert relative_error(projected, heads_out[:, :, 0]) < 0.03


def test_unpermute_undoes_permute():
    draw = Draw("cpu", 0)
    rows_, source = moving.permute(Point("permute", tokens=9, topk=4, hidden=32), draw).inputs()
    gathered = moving.permute(Point("permute", tokens=9, topk=4, hidden=32), draw).call(rows_, source)
    place = source.argsort(stable=True).view(9, 4)
    gates = torch.full((9, 4), 0.25)
    back = moving.unpermute(Point("unpermute", tokens=9, topk=4, hidden=32), draw).call(gathered, place, gates)
    torch.testing.assert_close(back, rows_)


def test_checked_rows_are_spread_from_first_to_last():
    assert some_rows(3) == [0, 1, 2]
    taken = some_rows(100_000)
    assert (len(taken), taken[0], taken[-1]) == (48, 0, 99_999)
