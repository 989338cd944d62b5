from collections import Counter, defaultdict

import pytest

from moesim.errors import InputError
from moesim.model import load_model
from moesim.profile.csv_columns import COLUMNS, DESCRIPTION, IMPLEMENTATIONS, KERNELS, KEY_COLUMNS
from moesim.profile.grid import FAMILIES, anchors, cpu_sizes, digest, gpu_sizes, grid, level
from moesim.profile.points import LAYERS, Point, expert_loads

FULL = grid(gpu_sizes(triton=True))


@pytest.mark.parametrize("name", ["v1", "v2", "v3"])
def test_the_layers_are_those_of_the_published_models(name):
    layer, model = LAYERS[name], load_model(f"deepseek-{name}")
    ours = (layer.hidden, layer.inter, layer.n_experts, layer.n_shared)
    assert ours == (model.hidden, model.expert_hidden, model.n_experts, model.n_shared)


def test_the_columns_of_the_plan_come_first_and_the_key_is_part_of_them():
    planned = (
        "schema_version,kernel,impl,dtype,variant,tokens,tokens_per_expert,experts_local,hidden,inter,topk,load_shape,"
        "cache,median_us,p20_us,p80_us,n,flops,bytes,tflops,gbps,sol_us,util,max_rel_err,status"
    )
    assert ",".join(COLUMNS).startswith(planned + ",")
    assert set(KEY_COLUMNS) < set(COLUMNS) == set(DESCRIPTION)


@pytest.mark.parametrize("sizes", [gpu_sizes(True), gpu_sizes(False), cpu_sizes()], ids=["gpu", "no triton", "cpu"])
def test_every_point_has_a_row_of_its_own_and_a_documented_kernel(sizes):
    points = grid(sizes)
    keys = Counter(tuple(point.fields("cold")[name] for name in KEY_COLUMNS) for point in points)
    assert max(keys.values()) == 1
    assert {point.kernel for point in points} | {"anchor_copy", "anchor_gemm"} == set(KERNELS)
    assert {point.impl for point in points} <= set(IMPLEMENTATIONS)
    assert {point.family for point in points} == set(FAMILIES)


def test_a_point_says_in_its_key_what_it_is():
    point = Point("expert_mlp", "torch", "fp8", "v3", 96, 32, 7168, 2048, load_shape="balanced")
    fields = point.fields("hot")
    assert fields["tokens_per_expert"] == "3"
    assert (fields["experts_local"], fields["hidden"], fields["cache"], fields["batch"]) == ("32", "7168", "hot", "")


def test_the_grid_goes_from_coarse_to_fine():
    levels = [point.level for point in FULL]
    assert levels == sorted(levels)
    assert set(levels) == {0, 1, 2}
    assert [level(i, 6) for i in range(6)] == [0, 2, 1, 2, 0, 0]


@pytest.mark.parametrize("finest", [0, 1, 2])
def test_after_each_level_the_expert_mlp_is_a_full_tensor_grid(finest):
    most = gpu_sizes(True).most_rows
    seen = defaultdict(set)
    for point in FULL:
        if (point.kernel, point.load_shape) == ("expert_mlp", "balanced") and point.level <= finest:
            seen[point.variant, point.dtype].add((point.tokens // point.experts_local, point.experts_local))
    assert len(seen) == 6
    for points in seen.values():
        rows, experts = {m for m, e in points if e == 1}, {e for m, e in points if m == 1}
        assert len(experts) == (3, 4, 6)[finest]
        assert points >= {(m, e) for m in rows for e in experts if m * e <= most}
        assert {min(rows), max(rows)} == {1, 8192}
        assert {min(experts), max(experts)} == {1, 32}


def test_uneven_loads_have_a_balanced_twin_of_as_many_rows():
    twins = {
        (p.kernel, p.impl, p.dtype, p.variant, p.tokens, p.experts_local) for p in FULL if p.load_shape == "balanced"
    }
    uneven = [p for p in FULL if p.load_shape in ("zipf1.2", "one-hot")]
    assert len(uneven) >= 100
    assert {(p.kernel, p.impl, p.dtype, p.variant, p.tokens, p.experts_local) for p in uneven} <= twins


def test_quick_is_part_of_the_grid_and_has_every_family():
    quick = grid(gpu_sizes(True), quick=True)
    assert set(quick) < {point for point in FULL if point.level == 0}
    assert {point.family for point in quick} == set(FAMILIES)
    assert len(quick) < 300


def test_families_are_taken_by_name_and_a_wrong_one_is_refused():
    assert {point.kernel for point in grid(cpu_sizes(), ["router"])} == {"router", "router_topk", "sort"}
    with pytest.raises(InputError, match="no family 'gate'; families are copy, grouped"):
        grid(cpu_sizes(), ["router", "gate"])


def test_the_digest_names_the_whole_grid():
    digests = {digest(gpu_sizes(True)), digest(gpu_sizes(False)), digest(cpu_sizes())}
    assert len(digests) == 3
    assert digest(cpu_sizes()) in digests


def test_anchors_differ_by_moment_and_session():
    points = [point for when in ("start", "end") for number in (1, 2) for point in anchors(cpu_sizes(), when, number)]
    assert len(set(points)) == len(points) == 8


@pytest.mark.parametrize("shape", ["balanced", "zipf1.2", "one-hot"])
@pytest.mark.parametrize(("tokens", "experts"), [(1, 8), (7, 3), (64, 8), (32_768, 8), (5, 1)])
def test_loads_sum_to_the_tokens(shape, tokens, experts):
    loads = expert_loads(tokens, experts, shape)
    assert sum(loads) == tokens
    assert len(loads) == experts
    assert loads == sorted(loads, reverse=True)


def test_loads_have_the_shape_that_their_name_says():
    assert expert_loads(64, 8, "one-hot") == [64] + [0] * 7
    assert expert_loads(10, 4, "balanced") == [3, 3, 2, 2]
    zipf = expert_loads(100_000, 8, "zipf1.2")
    assert [zipf[0] / load for load in zipf] == pytest.approx([rank**1.2 for rank in range(1, 9)], rel=2e-3)
