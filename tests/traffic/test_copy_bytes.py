"""Bytes of one token copy of DeepSeek-V3 (7,168 channels, 8 experts), as the libraries' kernels lay it out."""

import pytest

from moesim.errors import InputError
from moesim.traffic.copy_bytes import payload_bytes, published_bytes, wire_bytes

NORMAL, LOW_LATENCY, NCCL = "deepep-normal", "deepep-low-latency", "nccl-direct"


def test_a_token_is_two_bytes_a_channel_in_bf16_and_one_with_a_scale_per_128_in_fp8():
    assert payload_bytes(7168, "bf16") == 14_336
    assert payload_bytes(7168, "fp8") == 7168 + 4 * 56 == 7392
    # 129 channels need two scales
    assert payload_bytes(129, "fp8") == 129 + 8


@pytest.mark.parametrize(
    ("algorithm", "phase", "dtype", "on_the_wire"),
    [
        (NORMAL, "dispatch", "fp8", 7472),  # 7392 + 8 of metadata + 8 x (4 + 4) ids and weights, a multiple of 16
        (NORMAL, "dispatch", "bf16", 14_416),  # 14,408 rounded up
        (NORMAL, "combine", "bf16", 14_416),
        (LOW_LATENCY, "dispatch", "fp8", 7408),  # a header of 16
        (LOW_LATENCY, "dispatch", "bf16", 14_352),
        (LOW_LATENCY, "combine", "bf16", 14_336),  # no header on the way back
        (NCCL, "dispatch", "fp8", 7392),
        (NCCL, "dispatch", "bf16", 14_336),
        (NCCL, "combine", "bf16", 14_336),
        ("nccl-pxn", "dispatch", "bf16", 14_336),
        ("hybrid-ep", "dispatch", "fp8", 7392),
        # 7,168 channels, 224 of scales, 8 x 8 + 4 x 9 = 100 of metadata as 128
        ("deepep-v2-hybrid", "dispatch", "fp8", 7520),
        ("deepep-v2-direct", "dispatch", "bf16", 14_464),
        ("deepep-v2-direct", "combine", "bf16", 14_400),  # 8 x 8 of metadata on the way back
        ("deepep-low-latency-nic", "dispatch", "fp8", 7408),
        ("nvl-one-sided", "dispatch", "mxfp8", 7392),  # TensorRT-LLM blog 18
        ("nvl-one-sided", "dispatch", "nvfp4", 4032),
        ("nvl-two-sided", "combine", "bf16", 14_336),
        ("allgather-reduce-scatter", "dispatch", "fp8", 7456),  # ids and weights of 8 experts
        ("allgather-reduce-scatter", "combine", "bf16", 14_336),
    ],
)
def test_a_copy_occupies_the_bytes_that_the_kernels_send(algorithm, phase, dtype, on_the_wire):
    assert wire_bytes(algorithm, phase, 7168, dtype, top_k=8) == on_the_wire


def test_ids_and_weights_travel_along_in_normal_mode_only():
    for algorithm, grows in ((NORMAL, 64), (LOW_LATENCY, 0), (NCCL, 0)):
        few, many = (wire_bytes(algorithm, "dispatch", 7168, "fp8", top_k) for top_k in (8, 16))
        assert many - few == grows


@pytest.mark.parametrize("top_k", range(1, 17))
def test_normal_mode_aligns_to_16_bytes_and_never_cuts(top_k):
    payload = payload_bytes(1000, "fp8")
    size = wire_bytes(NORMAL, "dispatch", 1000, "fp8", top_k)
    assert size % 16 == 0
    assert 0 <= size - (payload + 8 + 8 * top_k) < 16


def test_published_figures_count_the_payload_and_in_low_latency_dispatch_the_header_too():
    assert published_bytes(NORMAL, "dispatch", 7168, "fp8", 8) == 7392
    assert published_bytes(NORMAL, "combine", 7168, "bf16", 8) == 14_336
    assert published_bytes(LOW_LATENCY, "dispatch", 7168, "fp8", 8) == 7408
    assert published_bytes(LOW_LATENCY, "combine", 7168, "bf16", 8) == 14_336
    # so wire over logical is + 1.1 % and + 0.6 % in normal mode, nothing elsewhere
    assert wire_bytes(NORMAL, "dispatch", 7168, "fp8", 8) / 7392 == pytest.approx(1.0108, abs=5e-5)
    assert wire_bytes(NORMAL, "combine", 7168, "bf16", 8) / 14_336 == pytest.approx(1.0056, abs=5e-5)


def test_v2s_test_counts_the_ids_and_weights_of_experts_too():
    # one log prints 400,593,024 bytes for the FP8 copies of a rank: 53,498 of them
    assert 53_498 * published_bytes("deepep-v2-hybrid", "dispatch", 7168, "fp8", 8) == 400_593_024
    assert published_bytes("deepep-v2-direct", "combine", 7168, "bf16", 8) == 14_336 + 4 * 8


def test_another_dtype_is_refused_by_name():
    with pytest.raises(InputError, match=r"'int4'.*fp8, bf16, mxfp8, nvfp4"):
        payload_bytes(7168, "int4")
    with pytest.raises(InputError, match="'int4'"):
        wire_bytes(NCCL, "dispatch", 7168, "int4", 8)
