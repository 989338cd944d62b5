"""Kernels of a training step's passes against a published trace, and the way back against the way forward."""

import csv
from functools import cache

import numpy as np
import pytest

from moesim.compute import free_constants
from moesim.layer import (
    KernelLedger,
    StepPrices,
    build_parts,
    dense_layer,
    layer_kernels,
    open_workload,
    output_head,
    route_layer,
)
from moesim.layer.training_kernels import attention_back, weights_over_forward
from moesim.scenario import load_scenario
from moesim.validate.published_steps import STEPS

TRAINING = {
    "cluster": {"topology": "h800-2x8-rail"},
    "model": {"preset": "deepseek-v3", "n_experts": 64},
    "routing": {"kind": "v3", "top_k": 8, "groups": 8, "top_groups": 4},
    "workload": {"synthetic": {"kind": "uniform"}, "tokens_per_rank": 4096, "sequence_length": 4096},
    "alltoall": {"sms": 20},
    "compute": {"library_date": "2025-02-01"},
    "parallel": {"ep": 16, "pp": 2},
    "schedule": {"phase": "training", "pipeline": "dualpipe", "micro_batches": 4, "recompute": "selective"},
}


@cache
def passes(*overrides):
    """Microseconds of each stage on the mean rank, forward and back; four experts a rank, as in the trace."""
    parts = build_parts(load_scenario(TRAINING, overrides))
    batch = open_workload(parts).batch(0)
    routed = route_layer(parts, batch, batch.layers[0], None)
    slot_rank, ledger = np.asarray(routed.placement.slot_rank), KernelLedger()
    about = (routed.tokens, routed.slot_tokens, slot_rank, routed.totals, ledger)
    return [
        {name: 1e6 * float(seconds.mean()) for name, seconds in layer_kernels(parts, *about, back).seconds.items()}
        for back in (False, True)
    ]


def prices(*overrides):
    parts = build_parts(load_scenario(TRAINING, overrides))
    return StepPrices(parts, parts.inference)


@pytest.mark.parametrize(
    ("metric", "stages"),
    [
        ("attention part of a forward layer, busy", ("projections", "attention", "gate")),
        ("expert part of a forward layer, busy", ("permute", "experts", "shared_expert", "unpermute")),
    ],
)
def test_a_forward_layer_takes_within_a_tenth_of_what_deepseeks_trace_shows(metric, stages):
    with STEPS.open(encoding="utf-8") as lines:
        published = next(float(row["value"]) for row in csv.DictReader(lines) if row["metric"] == metric)
    forward, _ = passes()
    assert sum(forward[name] for name in stages) == pytest.approx(published, rel=0.1)


BF16 = ("alltoall.dispatch_dtype=bf16", "schedule.recompute=none", "compute.library_date=null")


def test_in_bf16_gradients_of_weights_take_what_the_forward_gemms_take():
    forward, back = passes(*BF16)
    assert back["expert_weights"] == pytest.approx(forward["experts"] + forward["shared_expert"], rel=0.01)


def test_fp8_gradients_of_weights_take_longer_still_with_kernels_of_before_may_2025():
    late, early = (passes(f"compute.library_date={day}") for day in ("2025-06-01", "2025-05-05"))
    for stage in ("expert_weights", "attention_weights"):
        assert early[1][stage] == pytest.approx(1.2 * late[1][stage], rel=0.01)
    made = prices("compute.library_date=2025-06-01")
    assert weights_over_forward(made, "gemm_fp8") == free_constants()["weight_gradient"].value
    assert weights_over_forward(made, "gemm_bf16") == 1.0


def test_core_attention_back_is_five_products_for_two_at_a_share_of_the_rate():
    tokens = np.full(16, 4096)
    made = prices()
    core = next(one for one in made.attention(tokens) if one.widths is not None)
    assert core.widths == (192, 128)
    entered = {}

    def enter(stage, kernel, times):
        entered[kernel] = entered.get(kernel, 0.0) + float(times.seconds[0])

    attention_back(made, [core], tokens, enter)
    forward = float(core.times.seconds[0]) * made.factor(core.name)
    flops = (192 + 128 + 128 + 192 + 192) / (192 + 128)
    assert entered["mla_prefill back"] == pytest.approx(forward * flops / made.step.constants.attention_backward_share)


def test_what_is_computed_again_makes_the_way_back_longer_and_no_gradient_of_a_weight():
    plain, again = passes("schedule.recompute=none"), passes()
    assert plain[0] == again[0]
    for stage in ("projections", "experts"):
        assert again[1][stage] > plain[1][stage]
    for stage in ("attention_weights", "expert_weights", "attention"):
        assert again[1][stage] == pytest.approx(plain[1][stage])


def test_grids_leave_the_communication_kernels_their_sms_only_where_passes_overlap():
    assert prices().stretch == pytest.approx(132 / 112)
    assert prices("schedule.pipeline=1f1b").stretch == 1.0


def test_the_output_matrix_takes_every_token_of_a_training_step():
    made, tokens = prices(), np.full(16, 4096)
    head = output_head(made, tokens)
    flops = 2 * 4096 * 129280 * 7168
    assert head.weights > flops / made.parts.kernels.gpu.bf16_flops
    assert head.forward > head.weights
    dense = dense_layer(made, tokens)
    assert dense.input > dense.forward > 0 and dense.weights > 0
