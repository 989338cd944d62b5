# ruff: noqa: E402
"""The Triton kernels in Triton's own interpreter, where it is installed; a CPU has nothing else to run them on."""

import os

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined, Triton's own too
pytest.importorskip("triton")

from moesim.profile.kernels import fp8, fused_moe
from moesim.profile.kernels.case import FP8, FP32, Draw, relative_error, rowwise, swiglu_reference

pytestmark = pytest.mark.lab
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def cast_alike(ours, theirs):
    """Are fp8 values the same but for ties and the tops of binades, where Triton's interpreter rounds wrongly?"""
    return (ours.float() == theirs.float()).float().mean() > (0.999 if DEVICE == "cuda" else 0.95)


@pytest.fixture
def draw():
    return Draw(DEVICE, 0)


def test_swiglu(draw):
    middle = draw.normal(5, 2 * 176)
    assert relative_error(fused_moe.swiglu(middle), swiglu_reference(middle)) < 0.005
    cast, scale = fused_moe.swiglu_fp8(middle)
    theirs = rowwise(swiglu_reference(middle).float())
    assert relative_error(scale, theirs[1]) < 1e-5
    assert cast_alike(cast, theirs[0])


def test_quantize(draw):
    values = draw.normal(3, 1280)  # ten groups: more than one program takes
    cast, scale = fused_moe.quantize(values)
    theirs = fp8.block_rows(values)
    assert relative_error(scale, theirs[1]) < 1e-6
    assert cast_alike(cast, theirs[0])


def test_permute_moves_rows_as_they_are(draw):
    values, source = draw.normal(3, 1280), draw.integers(3, 10)
    assert torch.equal(fused_moe.permute(values, source), values[source])
    bits = values.to(FP8).view(torch.uint8)
    assert torch.equal(fused_moe.permute(bits, source), bits[source])


def test_unpermute_sums_with_gates(draw):
    rows, place, gates = draw.normal(12, 1280), draw.permutation(12).view(4, 3), draw.normal(4, 3, dtype=FP32)
    reference = (gates.double()[..., None] * rows.double()[place]).sum(1)
    assert relative_error(fused_moe.unpermute(rows, place, gates), reference) < 0.01


def test_nothing_changes_nothing(draw):
    values = draw.normal(4)
    before = values.clone()
    fused_moe.nothing(values)
    assert torch.equal(values, before)
