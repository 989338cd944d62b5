"""The fitted models themselves: tiles, waves, GEMMs, attention and draws against slow twins and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.compute import load_gpu
from moesim.compute.fitted import attention, experts, gemm, models, tiles
from moesim.compute.fitted.coefficients import fitted
from refit import draws
from refit.families import FAMILIES, parameters
from tests.reference.expert_time import best_tile, gemm_seconds

H800 = load_gpu("h800")
LAYOUTS = {"masked": tiles.MASKED, "low": tiles.MASKED_LOW, "contiguous": tiles.CONTIGUOUS, "dense": tiles.DENSE}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(LAYOUTS)),
    st.integers(1, 40_000),
    st.integers(1, 40_000),
    st.integers(1, 256),
    st.sampled_from([78, 132, 148]),
)
def test_the_tile_is_the_one_that_trying_them_all_finds(layout, rows, columns, groups, sms):
    chosen = LAYOUTS[layout]
    cut = tiles.choose(chosen, np.array([rows]), np.array([columns]), np.array([groups]), sms)
    assert (cut.rows[0], cut.columns[0], cut.sms[0]) == best_tile(
        rows, columns, groups, sms, chosen.rows, chosen.columns
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6000), min_size=1, max_size=12), st.sampled_from([(4096, 7168), (7168, 2048), (576, 7168)])
)
def test_a_grouped_gemm_costs_what_its_slow_twin_says(loads, shape):
    n, k = shape
    own = np.array([loads])
    if not own.any():
        return
    for layout, given_ in (("masked", tiles.MASKED), ("contiguous", tiles.CONTIGUOUS)):
        (one,) = models.grouped_gemm(H800, "fp8", own, np.array([len(loads)]), n, k, layout)
        if layout == "masked":
            expected, groups = max(-(-sum(loads) // len(loads)), 1), len(loads)
        else:
            expected, groups = sum(-(-m // 128) * 128 for m in loads), 1
        c = fitted()[f"grouped_{layout}", "h800", ""].coefficients
        slow = gemm_seconds(
            loads, n, k, expected, groups, given_.rows, given_.columns, H800.fp8_flops, H800.hbm_bandwidth, H800.sms, c
        )
        assert one.seconds[0] == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize(("columns", "width"), [(132 * 192, 192), (132 * 160, 160), (132 * 144, 144), (132 * 128, 128)])
@pytest.mark.parametrize("layout", [tiles.CONTIGUOUS, tiles.DENSE])
def test_the_narrowest_tile_that_saves_a_wave_is_taken(layout, columns, width):
    # One row of tiles on 132 SMs: one wave with tiles so wide, two with the next narrower ones.
    cut = tiles.choose(layout, np.array([128]), np.array([columns]), np.array([1]), 132)
    assert (cut.rows[0], cut.columns[0], cut.sms[0]) == (128, width, 132)


def test_no_fit_may_find_more_than_the_peaks():
    for family in FAMILIES.values():
        for variant in ("", "bf16", "fp8"):
            for parameter in parameters(family.name, variant):
                assert parameter.low <= parameter.start <= parameter.high
                if parameter.name in ("e", "em"):
                    assert parameter.low > 0 and parameter.high <= 1, family.name


def test_one_row_worked_out_by_hand():
    # One expert, 512 rows expected and 383 there, N = 4096, K = 7168 on 132 SMs: 4 x 32 tiles of 128 x 128 are one
    # wave on 128 SMs; the 3 x 32 tiles that are there are one wave as well.
    cut = tiles.choose(tiles.MASKED, np.array([512]), np.array([4096]), np.array([1]), 132)
    assert (cut.rows[0], cut.columns[0], cut.sms[0]) == (128, 128, 128)
    c = {"e": 0.8, "em": 0.9, "p": 2.0, "K0": 300.0, "u": 0.2}
    work = gemm.prepare(H800, tiles.MASKED, np.array([[383]]), 4096, 7168, "fp8", np.array([512]), np.array([1]))
    compute = (7168 + 300) * 2 * 128 * 128 / (0.8 * 1979e12 / 132)
    memory = (4096 * 7168 + 383 * (7168 + 2 * 4096)) / (0.9 * 3.35e12)
    assert gemm.seconds(H800, "fp8", c, work)[0] == pytest.approx((compute**2 + memory**2) ** 0.5)


def test_more_rows_than_expected_cost_a_second_wave():
    # Down GEMM of DeepSeek-V3, 512 rows expected: 2 x 64 tiles of 256 x 112 fill 128 SMs once. 648 rows need 3 x 64.
    cut = tiles.choose(tiles.MASKED, np.array([512]), np.array([7168]), np.array([1]), 132)
    assert (cut.rows[0], cut.columns[0]) == (256, 112)
    assert tiles.waves(cut, np.array([[512]]), np.array([7168]))[0] == 1
    assert tiles.waves(cut, np.array([[648]]), np.array([7168]))[0] == 2


def test_experts_without_a_row_cost_neither_weights_nor_tiles():
    slots = np.array([8])
    full, half = (
        gemm.prepare(H800, tiles.MASKED, loads, 4096, 7168, "fp8", np.array([8]), slots)
        for loads in (np.full((1, 8), 8), np.array([[8] * 4 + [0] * 4]))
    )
    assert half.moved[0] == full.moved[0] / 2
    assert half.waves[0] <= full.waves[0]


def test_hiding_is_the_longer_time_at_a_large_power_and_the_sum_at_one():
    assert gemm.hide(np.array([3.0]), np.array([1.0]), 1.0)[0] == pytest.approx(4.0)
    assert gemm.hide(np.array([3.0]), np.array([4.0]), 2.0)[0] == pytest.approx(5.0)
    assert gemm.hide(np.array([1e-9]), np.array([1.0]), 12.0)[0] == pytest.approx(1.0)
    assert gemm.hide(np.zeros(1), np.zeros(1), 2.0)[0] == 0.0


def test_skew_is_zero_for_even_loads_and_for_the_experts_that_got_nothing():
    assert experts.skew(np.array([[5, 5, 5], [5, 5, 0], [0, 0, 0], [6, 3, 0]])) == pytest.approx([0, 0, 0, 0.25])


@pytest.mark.parametrize("gpu", ["h100", "h200", "h800", "h20"])
def test_padding_slots_change_nothing(gpu):
    table_loads = np.array([[40, 0, 17, 300]])
    padded = np.pad(table_loads, ((0, 0), (0, 3)))
    one, two = (
        sum(
            part.seconds
            for part in models.grouped_gemm(load_gpu(gpu), "fp8", loads, np.array([4]), 4096, 7168, "masked")
        )
        for loads in (table_loads, padded)
    )
    assert one == pytest.approx(two, rel=1e-12)
    if models.has_whole_mlp(load_gpu(gpu)):
        one, two = (
            models.expert_mlp(load_gpu(gpu), "fp8", loads, np.array([4]), 7168, 2048, "contiguous")[0].seconds
            for loads in (table_loads, padded)
        )
        assert one == pytest.approx(two, rel=1e-12)


# Attention.


def test_decode_splits_a_long_sequence_only_while_sms_are_idle():
    gpu = load_gpu("h100")
    batch, kv = np.array([1, 1, 32, 64, 128]), np.array([256, 65536, 8192, 8192, 8192])
    work = attention.prepare_decode(gpu, batch, kv, 128, 1, 512, 64)
    # 320 cached tokens or fewer are 4 blocks: no split; 128 and more tiles fill 0.8 of 132 SMs: no split.
    assert list(work.splits == 1) == [True, False, False, True, True]
    assert (work.waves == np.ceil(batch * 2 * work.splits / 132)).all()


def test_decode_costs_at_least_each_of_its_parts_at_peak():
    for gpu in map(load_gpu, ("h100", "h200", "h800", "h20")):
        for batch, kv in ((1, 131072), (16, 4096), (512, 8192)):
            seconds = models.mla_decode(gpu, np.array([batch]), np.array([kv]), 128, 1, 512, 64, "bf16").seconds[0]
            assert seconds > 2 * batch * 128 * kv * 1088 / gpu.bf16_flops
            assert seconds > 2 * batch * kv * 576 / gpu.hbm_bandwidth


def deal_slowly(batch, kv_len, teams, limit):
    """Hand out the parts one by one, each to the team with the least cost so far, the first of equals."""
    cost, tokens = [0] * teams, [0] * teams
    for _ in range(batch):
        left = kv_len
        while left > 0:
            team = min(range(teams), key=lambda t: (cost[t], t))
            part = min(left, limit)
            cost[team] += 256 + part
            tokens[team] += -(-part // 64) * 64
            left -= part
    return max(tokens)


@pytest.mark.parametrize(("batch", "kv_len", "limit"), [(16, 131072, 54016), (32, 131072, 107776), (64, 4096, 6912)])
def test_flashinfers_dealing_is_the_greedy_one(batch, kv_len, limit):
    # 39 teams of two SMs on the H20; the mean load of a team, rounded up to 256, is where sequences are cut.
    assert -(-batch * kv_len // 39 // 256) * 256 == pytest.approx(limit, abs=256)
    fullest, _, cut = attention.deal(batch, kv_len, 39, 1, 128)
    assert cut == (kv_len > limit)
    assert fullest == deal_slowly(batch, kv_len, 39, limit)


def test_sixteen_long_sequences_leave_the_h20s_teams_unevenly_loaded():
    # Each is cut into 54,016 + 54,016 + 23,040 tokens; a team gets 77,056 of them where the mean is 53,773.
    fullest, parts, cut = attention.deal(16, 131072, 39, 1, 128)
    assert cut and fullest == 54016 + 23040 and parts == 2


def test_prefill_counts_the_blocks_of_every_token():
    gpu = load_gpu("h100")
    for length in (1, 63, 64, 65, 1000):
        work = attention.prepare_prefill(gpu, np.array([300]), np.array([length]), 128, 512, 64)
        blocks = np.mean([-(-(t + 1) // 64) for t in range(length)])
        assert work.flops[0] == pytest.approx(300 * length * 2 / 132 * blocks * 64 * 64 * 2 * 1088)
        # Two bytes each: a token's latent of 512 and position of 64; a query row of both in, a latent out, 128 heads.
        assert work.moved[0] == 2 * 300 * length * (576 + 128 * (576 + 512))


# Draws of uneven loads.


def hand_out_slowly(by_rank, units, most):
    counts = by_rank.copy()
    while units > 0 and (counts < most).any():
        for rank in range(len(counts)):
            room = np.flatnonzero(counts[rank] < most)
            if units and len(room):
                counts[rank, room[counts[rank, room].argmin()]] += 1
                units -= 1
    return counts


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_what_is_over_goes_to_the_ranks_in_turn_and_there_to_the_least_loaded(ranks, local, units, seed):
    by_rank = np.random.default_rng(seed).integers(0, 9, (ranks, local))
    fast, slow = draws._hand_out(by_rank, units, 12), hand_out_slowly(by_rank, units, 12)
    assert (np.sort(fast, axis=1) == np.sort(slow, axis=1)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4096), st.sampled_from([4, 32, 256]), st.sampled_from([0.6, 1.01, 1.2]), st.integers(0, 99))
def test_a_draw_is_the_fullest_rank_of_all_pairs(tokens, ranks, exponent, seed):
    loads = draws.fullest_rank(np.random.default_rng(seed), tokens, 256, 8, ranks, exponent)
    assert loads.shape == (256 // ranks,)
    assert loads.min() >= 0 and loads.max() <= tokens
    # No rank has more than the fullest, and the pairs of all ranks are 8 per token.
    assert 8 * tokens / ranks <= loads.sum() <= 8 * tokens


def test_a_steeper_power_law_loads_the_fullest_rank_more():
    mean = [
        draws.loads(np.random.default_rng(3), 4096, 256, 8, 64, exponent, 40).sum(axis=1).mean()
        for exponent in (0.6, 1.01, 1.2)
    ]
    assert mean[0] < mean[1] < mean[2]
