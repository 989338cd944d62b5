"""The fused kernel against the plain scan of ``select`` (bit for bit), NumPy, and the losses token by token."""

import dataclasses

import numba
import numpy as np
import pytest
from numba import njit

from moesim.balance import (
    LossFactors,
    communication_loss,
    device_loss,
    expert_load,
    expert_loss,
    measure,
    sequence_imbalance,
    sequence_loss,
    z_loss,
)
from moesim.balance.sums import device_numbers
from moesim.errors import InputError
from moesim.routing import (
    RouterSpec,
    RouterSums,
    SequenceSums,
    blocks,
    fused,
    fused_pass_takes,
    gate_mass_lost,
    route,
    route_and_measure,
    threads,
)
from moesim.routing.blocks import kernel_groups
from moesim.routing.exponential import ERROR_32, ERROR_64, exponential_32, exponential_64
from moesim.routing.lanes import LANES, turn
from moesim.routing.router_spec import kernel_knobs
from moesim.routing.scores import checked_bias
from moesim.routing.select import select_and_gate
from moesim.routing.top_eight import CHUNK, PAIR, ROW, ROWS, merge_chunks, merge_columns, sort_chunks
from tests.reference.losses import losses_of_sums

# The network in plain Python takes milliseconds per token.
many_tokens = pytest.mark.jit
COMPILED = not numba.config.DISABLE_JIT


def up_to(n_tokens):
    """Return so many tokens, or the sixteen that go side by side where kernels run as plain Python."""
    return n_tokens if COMPILED else min(n_tokens, LANES)


UNEVEN = np.sort(np.random.default_rng(11).integers(0, 12, 258 - 12).tolist() + list(range(12)))
ROUTERS = {
    "v3": RouterSpec("v3", 256, 8, 8, 4, scale=2.5),
    "v3 without groups": RouterSpec("v3", 256, 8),
    "v3 ranked by the best": RouterSpec("v3", 128, 6, 8, 2, group_score="max"),
    "v3, 258 experts in 64 groups": RouterSpec("v3", 258, 8, 64, 20),
    "v3, uneven groups out of order": RouterSpec("v3", 258, 8, 12, 5, group_of_expert=UNEVEN[::-1].copy()),
    "v3, 512 experts, top 3": RouterSpec("v3", 512, 3, 16, 4),
    "v3, 100 experts, top 1": RouterSpec("v3", 100, 1, 5, 2),
    "v3, groups of one and of many": RouterSpec("v3", 77, 4, 4, 3, group_of_expert=[0] + [1] * 3 + [2] * 40 + [3] * 33),
    "v1": RouterSpec("v1", 256, 6),
    "v1 normalised": RouterSpec("v1", 64, 8, normalize=True),
    "v2": RouterSpec("v2", 160, 6, 8, 3),
}


@pytest.fixture(autouse=True)
def fused_whether_compiled_or_not(monkeypatch):
    monkeypatch.setattr(blocks, "route_block", fused.route_block)


def plain(logits, spec, bias=None):
    """The scan that decides everything in float64."""
    groups = kernel_groups(spec)
    ids = np.empty((len(logits), spec.top_k), np.int32)
    gates = np.empty(ids.shape, np.float32)
    select_and_gate(
        logits.astype(np.float32), checked_bias(bias, spec), kernel_knobs(spec), groups.ptr, groups.experts, ids, gates,
    )  # fmt: skip
    return ids, gates


@pytest.mark.parametrize(("temperature", "taken"), [(1.0, True), (2.0, False)])
def test_a_knob_that_the_fused_pass_does_not_know_is_left_to_the_plain_scan(temperature, taken):
    class Warmer(RouterSpec):
        score_temperature: float = 1.0

    spec = dataclasses.dataclass(frozen=True, init=False)(Warmer)("v3", 256, 8)
    object.__setattr__(spec, "score_temperature", temperature)
    assert fused_pass_takes(spec, np.dtype(np.float32), biased=False) is taken


@pytest.mark.parametrize("spread", [1.0, 1e-3, 40.0, "rounded", "saturated", "vanishing"])
@pytest.mark.parametrize("name", ROUTERS)
def test_ids_and_gates_are_those_of_the_plain_scan_to_the_last_bit(name, spread):
    spec, rng = ROUTERS[name], np.random.default_rng(7)
    logits = rng.normal(size=(up_to(400), spec.n_experts))
    if spread == "rounded":  # ties, and negative zeros
        logits = np.round(logits)
    elif spread == "saturated":
        logits = 30 + logits * 5
    elif spread == "vanishing":
        logits = logits * 5 - np.linspace(40, 200, len(logits))[:, None]
    else:
        logits *= spread
    logits = logits.astype(np.float32)
    for bias in (None, rng.normal(size=spec.n_experts) * 0.01, np.full(spec.n_experts, -0.7)):
        if bias is not None and spec.score == "softmax":
            continue
        assert fused_pass_takes(spec, logits.dtype, bias is not None)
        ids, gates = plain(logits, spec, bias)
        got = route(logits, spec, bias)
        assert (got.expert_ids == ids).all()
        assert (got.gates.view(np.int32) == gates.view(np.int32)).all()


@pytest.mark.parametrize("name", ["v3", "v3 ranked by the best", "v3, 258 experts in 64 groups", "v1", "v2"])
def test_a_few_tokens_are_routed_and_measured_as_the_plain_scan_and_the_losses_say(name):
    spec, rng = ROUTERS[name], np.random.default_rng(3)
    logits = rng.normal(size=(5, spec.n_experts)).astype(np.float32)
    logits[1] = np.round(logits[1])
    logits[2, 7] = 95.0
    logits[3] = logits[3].astype(np.float16)
    bias = rng.normal(size=spec.n_experts) * 0.1 if spec.score == "sigmoid" else None
    sequence, device = np.array([4, 4, 9, 9, 9]), np.arange(spec.n_experts) % 4
    given = {"weight": [2, 1, 0, 3, 1], "device_of_expert": device, "sequence_id": sequence}
    ids, gates, sums = route_and_measure(logits, spec, bias, **given)
    wanted = plain(logits, spec, bias)
    assert (ids == wanted[0]).all() and (gates == wanted[1]).all()
    free = plain(logits, RouterSpec(spec.kind, spec.n_experts, spec.top_k))[0] if spec.kind == "v3" else ids
    apart = measure(logits, ids, spec, counted_ids=free, **given)
    for name in ("weight", "load", "affinity", "received", "logsumexp_squared", "gate_mass_lost"):
        assert getattr(sums, name) == pytest.approx(getattr(apart, name), rel=1e-6, abs=1e-6), name
    for name, values in vars(apart.sequences).items():
        assert getattr(sums.sequences, name) == pytest.approx(values, rel=1e-6), name
    half = logits[[0, 1, 3, 4]].astype(np.float16)
    assert (route(half, spec).expert_ids == plain(half, spec)[0]).all()


def test_the_network_finds_the_eight_largest_of_any_keys_of_each_token():
    rng = np.random.default_rng(1)
    for n in (1, 2, 5):
        keys = rng.integers(-(2**31), 2**31, (n * CHUNK, LANES)).astype(np.int32)
        wanted = np.sort(keys, axis=0)[::-1][:8]
        chunks, tops = keys.reshape(n, CHUNK * LANES).copy(), np.empty((n, ROWS * LANES), np.int32)
        sort_chunks(chunks)
        merge_columns(chunks, np.empty(ROWS * PAIR, np.int32), tops)
        best = np.empty(ROWS * LANES, np.int32)
        merge_chunks(tops, best)
        assert (best.reshape(ROWS, LANES) == wanted).all()


def test_the_sorting_network_sorts_every_pattern_of_zeros_and_ones():
    # Knuth's 0-1 principle: a network that sorts all 256 of them sorts everything.
    patterns = (np.arange(256)[:, None] >> np.arange(8)) & 1
    chunks = np.ascontiguousarray(patterns.reshape(4, ROW, 8).swapaxes(1, 2), dtype=np.int32)
    sort_chunks(chunks.reshape(4, 8 * ROW))
    assert np.array_equal(chunks.swapaxes(1, 2).reshape(256, 8), np.sort(patterns, axis=1)[:, ::-1])


def test_rows_of_keys_are_turned_into_columns():
    rng = np.random.default_rng(6)
    rows = rng.integers(-(2**31), 2**31, (LANES, 48)).astype(np.int32)
    place = rng.permutation(60)[:48]
    flat = np.zeros(60 * LANES, np.int32)
    turn_compiled = njit(lambda rows, slot, flat: turn(rows, slot, flat))
    turn_compiled(rows, place * LANES, flat)
    wanted = np.zeros((60, LANES), np.int32)
    wanted[place] = rows.T
    assert (flat.reshape(60, LANES) == wanted).all()


def test_sixteen_bit_logits_are_read_as_the_numbers_they_are():
    rng, spec = np.random.default_rng(2), ROUTERS["v3"]
    half = np.concatenate([rng.normal(size=(up_to(300), 256)), rng.normal(size=(up_to(50), 256)) * 1e-6])
    half = half.astype(np.float16)
    half[:10] = np.round(half[:10])
    wide = rng.normal(size=(up_to(300), 256)).astype(np.float32)
    brain = (wide.view(np.uint32) >> 16).astype(np.uint16)
    for logits, same, flag in ((half, half, False), (brain, (brain.astype(np.uint32) << 16).view(np.float32), True)):
        ids, gates = plain(same, spec)
        got = route(logits, spec, bfloat16=flag)
        assert (got.expert_ids == ids).all() and (got.gates.view(np.int32) == gates.view(np.int32)).all()
    # A router that the kernel does not take reads them too.
    ten = RouterSpec("v1", 256, 10)
    assert (route(brain, ten, bfloat16=True).expert_ids == route(same, ten).expert_ids).all()


def test_bfloat16_must_come_as_its_bits():
    with pytest.raises(InputError, match="bfloat16 logits of type float32"):
        route(np.zeros((1, 256), np.float32), ROUTERS["v3"], bfloat16=True)


@pytest.mark.parametrize("name", ["v3", "v2"])
@pytest.mark.parametrize("gap", [1, 255, 257])
def test_logits_that_differ_in_their_last_bits_only_are_told_apart(name, gap):
    # Keys hold the upper 24 bits of a logit: neighbours within 256 steps of float32 share them.
    spec, rng = ROUTERS[name], np.random.default_rng(8)
    n = up_to(300)
    bits = np.float32(1.5).view(np.int32) + gap * rng.permuted(np.tile(np.arange(spec.n_experts), (n, 1)), axis=1)
    logits = bits.astype(np.int32).view(np.float32) * np.where(np.arange(n) % 2, -1, 1)[:, None].astype(np.float32)
    ids, gates = plain(logits, spec)
    got = route(logits, spec)
    assert (got.expert_ids == ids).all() and (got.gates.view(np.int32) == gates.view(np.int32)).all()


def test_all_of_a_token_s_experts_may_lie_in_one_chunk_of_keys():
    spec, rng = ROUTERS["v3 without groups"], np.random.default_rng(9)
    n = up_to(200)
    logits = rng.normal(size=(n, 256)).astype(np.float32)
    logits[:, 64:96] = 3 + rng.integers(0, 3, (n, 32)) * np.float32(2.0**-20)
    assert (route(logits, spec).expert_ids == plain(logits, spec)[0]).all()


def test_an_expert_left_out_may_share_its_prefix_with_the_last_chosen():
    # The keys of the last expert end in zeros. Its logit is the ninth by key, and by one step of float32 the eighth in
    # truth; of the eight before it by key, ``inside`` lie in its own chunk.
    spec = ROUTERS["v3 without groups"]
    logits = np.zeros((8, 256), np.float32)
    for inside, row in enumerate(logits):
        row[224 : 224 + inside] = 3.0 + np.arange(inside)
        row[: 7 - inside] = 12.0 + np.arange(7 - inside)
        row[100] = np.float32(1.5)
        row[255] = np.nextafter(np.float32(1.5), np.float32(2.0))
    got = route(logits, spec).expert_ids
    assert (got == plain(logits, spec)[0]).all() and (got[:, 7] == 255).all()


@pytest.mark.parametrize("bias", [None, np.linspace(0.0, 0.1, 256)])
def test_experts_counted_without_limit_and_bias_may_share_a_prefix_too(bias):
    # As above, in groups; the other tokens of the sequence rate experts 100 and 255 apart, which shows in the sums.
    spec = ROUTERS["v3"]
    logits = np.random.default_rng(13).normal(size=(16, 256)).astype(np.float32)
    logits[:8] = -3.0
    for inside, row in enumerate(logits[:8]):
        row[224 : 224 + inside] = 3.0 + np.arange(inside)
        row[: 7 - inside] = 12.0 + np.arange(7 - inside)
        row[[100, 255]] = np.float32(1.5), np.nextafter(np.float32(1.5), np.float32(2.0))
    logits[8:, 100], logits[8:, 255] = -5.0, 0.5
    sequence = np.zeros(16, int)
    ids, _, sums = route_and_measure(logits, spec, bias, sequence_id=sequence)
    free = plain(logits, RouterSpec("v3", 256, 8))[0]
    assert (free[:8, 7] == 255).all()
    apart = measure(logits, ids, spec, sequence_id=sequence, counted_ids=free)
    assert sums.sequences.product == pytest.approx(apart.sequences.product, rel=1e-6)


def test_groups_whose_scores_sum_to_nearly_the_same_are_ranked_exactly():
    # Pairs of logits of 16 bits whose sigmoids sum to within 1e-8 of each other, less than float32 can tell.
    pairs = np.random.default_rng(14).normal(size=(100_000, 2)).astype(np.float16)
    sums = (1 / (1 + np.exp(-pairs.astype(np.float64)))).sum(axis=1)
    pairs, sums = pairs[np.argsort(sums)], np.sort(sums)
    near = np.flatnonzero((np.diff(sums) > 1e-12) & (np.diff(sums) < 1e-8))[:32]
    logits = np.full((2 * len(near), 256), -8.0, np.float16)
    logits[:, [0, 32, 64]] = 6.0  # groups 0 to 2 are kept; group 3 or 4 is the fourth
    for token, (one, other) in enumerate([*zip(near, near + 1, strict=True), *zip(near + 1, near, strict=True)]):
        logits[token, 96:98], logits[token, 128:130] = pairs[one], pairs[other]
    got, wanted = route(logits, ROUTERS["v3"]).expert_ids, plain(logits, ROUTERS["v3"])[0]
    assert len(near) > 8 and (got == wanted).all()
    fourth = np.where((wanted[:, :5] // 32 == 3).any(axis=1), 3, 4)
    assert fourth.tolist() == [4] * len(near) + [3] * len(near)


@pytest.mark.parametrize("n_tokens", [1, 15, 16, 17, 33])
def test_a_batch_need_not_fill_its_last_sixteen_tokens(n_tokens):
    spec = ROUTERS["v3"]
    logits = np.random.default_rng(n_tokens).normal(size=(n_tokens, 256)).astype(np.float32)
    assignment = route(logits, spec)
    ids, gates = plain(logits, spec)
    assert (assignment.expert_ids == ids).all() and (assignment.gates == gates).all()


def test_sums_of_a_sequence_do_not_depend_on_its_neighbours():
    spec, rng = ROUTERS["v3"], np.random.default_rng(10)
    logits = rng.normal(size=(90, 256)).astype(np.float32)
    sequence = np.repeat([0, 1, 2, 3, 4], [5, 40, 13, 1, 31])
    together = route_and_measure(logits, spec, sequence_id=sequence)[2].sequences.product
    alone = [route_and_measure(logits[sequence == s], spec, sequence_id=sequence[sequence == s])[2] for s in range(5)]
    assert together.tolist() == [float(own.sequences.product[0]) for own in alone]


def test_exponentials_keep_the_errors_that_they_state():
    x = np.linspace(-86.9, 86.9, 4001).astype(np.float32)
    got = np.array([float(exponential_32(value)) for value in x])
    assert np.abs(got / np.exp(x.astype(np.float64)) - 1).max() < ERROR_32
    wide = np.linspace(-699.0, 699.0, 4001)
    got = np.array([exponential_64(value) for value in wide])
    assert np.abs(got / np.exp(wide) - 1).max() < ERROR_64
    assert exponential_64(-1e6) < 1e-303


@many_tokens
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_a_logit_that_is_no_number_names_the_first_such_token(bad, kind, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_TOKENS", 256)
    logits = np.zeros((3000, 256), np.float32)
    logits[[2999, 1500, 2400], 5] = bad
    logits = {"float32": logits, "float16": logits.astype(np.float16)}.get(kind, logits)
    if kind == "bfloat16":
        logits = (logits.view(np.uint32) >> 16).astype(np.uint16)
    with pytest.raises(InputError, match="token 1500 for expert 5"):
        route(logits, ROUTERS["v3"], bfloat16=kind == "bfloat16")


def batch(spec, seed=3):
    """Logits, bias, weights, sequences of 1 to 40 tokens in mixed order, and devices."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(up_to(3000), spec.n_experts)) * 2).astype(np.float32)
    weight = rng.integers(1, 4, len(logits))
    sequence = rng.permutation(np.repeat(np.arange(200), rng.integers(1, 41, 200))[: len(logits)])
    sequence = np.resize(sequence, len(logits))
    device = np.arange(spec.n_experts) * 7 // spec.n_experts * 3  # 0, 3, 6, ...: numbers may be missing
    return logits, rng.normal(size=spec.n_experts) * 0.05, weight, sequence, device


FACTORS = LossFactors(expert=0.003, device=0.05, communication=0.02, sequence=1e-4, z=1e-3)


@pytest.mark.parametrize("name", ["v3", "v3 without groups", "v1", "v2"])
@pytest.mark.parametrize("biased", [False, True])
def test_the_sums_make_the_losses_that_the_tokens_make_one_by_one(name, biased):
    spec = ROUTERS[name]
    logits, bias, weight, sequence, device = batch(spec)
    if spec.score == "softmax" or not biased:
        bias = None
    ids, gates, sums = route_and_measure(
        logits, spec, bias, weight=weight, device_of_expert=device_numbers(device, spec), sequence_id=sequence
    )
    a = route(logits, spec, bias)
    assert (ids == a.expert_ids).all() and (gates == a.gates).all()
    free = route(logits, RouterSpec(spec.kind, spec.n_experts, spec.top_k)).expert_ids if spec.kind == "v3" else ids
    common = {"weight": weight, "with_grad": False}
    wanted = {
        "expert_loss": expert_loss(logits, ids, spec, alpha=0.003, **common).value,
        "device_loss": device_loss(logits, ids, spec, device, alpha=0.05, **common).value,
        "communication_loss": communication_loss(logits, ids, spec, device, alpha=0.02, **common).value,
        "sequence_loss": sequence_loss(logits, free, spec, sequence, alpha=1e-4, **common).value,
        "z_loss": z_loss(logits, alpha=1e-3, **common).value,
    }
    got = losses_of_sums(sums, spec, device, FACTORS)
    assert got == pytest.approx(wanted, rel=1e-6)
    assert (sums.load == expert_load(ids, spec.n_experts, weight)).all()
    assert sums.weight == weight.sum()
    lost = np.average(gate_mass_lost(logits, spec, ids), weights=weight)
    assert sums.gate_mass_lost / sums.weight == pytest.approx(lost, abs=1e-7)
    assert sums.sequences.max_over_mean == pytest.approx(sequence_imbalance(ids, sequence, spec.n_experts), rel=1e-14)


@pytest.mark.parametrize("name", ["v2", "v3"])
def test_a_higher_logit_is_lost_also_where_an_equal_of_the_lowest_takes_its_place(name):
    spec = ROUTERS[name]
    logits = np.round(np.random.default_rng(12).normal(size=(64, spec.n_experts)) * 1.5).astype(np.float32)
    ids, _, sums = route_and_measure(logits, spec)
    assert sums.gate_mass_lost == pytest.approx(gate_mass_lost(logits, spec, ids).sum(), rel=1e-5)
    lowest = np.sort(logits, axis=1)[:, -spec.top_k]
    ties = (np.take_along_axis(logits, ids, axis=1) >= lowest[:, None]).all(axis=1)
    assert gate_mass_lost(logits[ties], spec, ids[ties]).max() > 1e-4


@pytest.mark.parametrize("spread", [100.0, -200.0])
def test_losses_of_far_logits_are_those_of_float64(spread):
    spec = ROUTERS["v3"]
    logits, _, _, sequence, device = batch(spec)
    logits = (logits[:200] * 10 + spread).astype(np.float32)
    _, _, sums = route_and_measure(
        logits, spec, device_of_expert=device_numbers(device, spec), sequence_id=sequence[: len(logits)]
    )
    ids = route(logits, spec).expert_ids
    got = losses_of_sums(sums, spec, device, FACTORS)
    assert got["expert_loss"] == pytest.approx(expert_loss(logits, ids, spec, alpha=0.003).value, rel=1e-6)
    assert got["z_loss"] == pytest.approx(z_loss(logits, alpha=1e-3).value, rel=1e-6)


@many_tokens
def test_neither_threads_nor_the_size_of_blocks_change_ids_gates_or_counts(monkeypatch):
    spec = ROUTERS["v3"]
    logits, bias, weight, sequence, device = batch(spec)
    args = {"weight": weight, "device_of_expert": device_numbers(device, spec), "sequence_id": sequence}
    results = []
    for cores, tokens in ((1, 1024), (2, 1024), (5, 1024), (3, 100)):
        monkeypatch.setattr(threads, "n_threads", lambda cores=cores: cores)
        monkeypatch.setattr(blocks, "BLOCK_TOKENS", tokens)
        results.append(route_and_measure(logits, spec, bias, **args))
    for ids, gates, sums in results[1:]:
        assert (ids == results[0][0]).all() and (gates == results[0][1]).all()
        assert (sums.load == results[0][2].load).all() and (sums.received == results[0][2].received).all()
        assert (sums.sequences.product == results[0][2].sequences.product).all()
    # The order of float sums follows the blocks, never the threads.
    assert (results[1][2].affinity == results[0][2].affinity).all()
    assert (results[2][2].affinity == results[0][2].affinity).all()
    assert results[3][2].affinity == pytest.approx(results[0][2].affinity, rel=1e-12)


@many_tokens
def test_pieces_of_a_batch_add_up_to_it():
    spec = ROUTERS["v3"]
    logits, bias, weight, _, device = batch(spec)
    sequence = np.arange(len(logits)) // 30
    args = {"bias": bias, "device_of_expert": device_numbers(device, spec)}
    _, _, whole = route_and_measure(logits, spec, weight=weight, sequence_id=sequence, **args)
    parts = [
        route_and_measure(logits[piece], spec, weight=weight[piece], sequence_id=sequence[piece], **args)[2]
        for piece in (slice(0, 900), slice(900, 1800), slice(1800, 3000))
    ]
    held = zip(*(vars(part.sequences).values() for part in parts), strict=True)
    of_sequences = SequenceSums(*map(np.concatenate, held))
    sums = {name: sum(getattr(part, name) for part in parts) for name in vars(whole) if name != "sequences"}
    total = RouterSums(**sums, sequences=of_sequences)
    assert (total.load == whole.load).all() and (total.received == whole.received).all()
    got, wanted = (losses_of_sums(sums, spec, device, FACTORS) for sums in (total, whole))
    assert got == pytest.approx(wanted, rel=1e-12)


def test_a_batch_of_no_tokens_has_sums_and_no_losses():
    spec = ROUTERS["v3"]
    device = np.zeros(256, np.int64)
    ids, gates, sums = route_and_measure(
        np.empty((0, 256), np.float32), spec, device_of_expert=device, sequence_id=np.empty(0, np.int64)
    )
    assert ids.shape == gates.shape == (0, 8) and sums.load.sum() == sums.weight == 0
    with pytest.raises(InputError, match="without tokens"):
        losses_of_sums(sums, spec, device, FACTORS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": RouterSpec("v1", 256, 10)}, "no fused pass for v1 top-10"),
        ({"logits": np.zeros((4, 256))}, "float64 logits"),
        ({"weight": [1.0] * 3}, "weight has shape"),
        ({"weight": [1.0, 1.0, 1.0, -1.0]}, "weight holds -1.0"),
        ({"device_of_expert": [0.5] * 256}, "device_of_expert has shape"),
        ({"sequence_id": [0] * 5}, "sequence_id has shape"),
    ],
)
def test_what_the_pass_cannot_take_is_refused(change, message):
    arguments = {"logits": np.zeros((4, 256), np.float32), "spec": ROUTERS["v3"], **change}
    with pytest.raises(InputError, match=message):
        route_and_measure(**arguments)


def test_losses_need_sums_of_their_own_devices():
    spec = ROUTERS["v3"]
    _, _, sums = route_and_measure(np.zeros((4, 256), np.float32), spec, device_of_expert=np.zeros(256, np.int64))
    with pytest.raises(InputError, match="without sequences or of other devices"):
        losses_of_sums(sums, spec, np.zeros(256, np.int64), FACTORS)
