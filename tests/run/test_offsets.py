"""When ranks enter: one number, a list, or a distribution."""

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.run.offsets import start_offsets
from moesim.scenario.arrivals import ExponentialOffset, LognormalOffset, NormalOffset, UniformOffset


def test_offsets_are_one_number_a_list_or_drawn():
    rng = np.random.default_rng(0)
    assert start_offsets(2e-6, 3, rng).tolist() == [2e-6] * 3
    assert start_offsets((0.0, 1.0), 2, rng).tolist() == [0.0, 1.0]
    with pytest.raises(InputError, match="2 offsets for 3 ranks"):
        start_offsets((0.0, 1.0), 3, rng)


@pytest.mark.parametrize(
    ("offset", "mean", "median"),
    [
        (LognormalOffset(distribution="lognormal", sigma=0.5, scale="50us"), 50e-6 * np.exp(0.125), 50e-6),
        (UniformOffset(distribution="uniform", scale="50us"), 25e-6, 25e-6),
        (NormalOffset(distribution="normal", mean="500us", scale="50us"), 500e-6, 500e-6),
        (ExponentialOffset(distribution="exponential", scale="50us"), 50e-6, 50e-6 * np.log(2)),
    ],
    ids=lambda value: getattr(value, "distribution", ""),
)
def test_drawn_offsets_have_the_distribution_s_mean_and_median(offset, mean, median):
    drawn = start_offsets(offset, 20_000, np.random.default_rng(1))
    assert drawn.min() >= 0
    assert drawn.mean() == pytest.approx(mean, rel=0.03) and np.median(drawn) == pytest.approx(median, rel=0.03)
