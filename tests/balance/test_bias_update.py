import numpy as np
import pytest

from moesim.balance import expert_load, max_violation, update_bias
from moesim.errors import InputError
from moesim.routing import RouterSpec, route


def test_an_overloaded_expert_loses_the_rate_and_an_underloaded_one_gains_it():
    bias = update_bias([0.5, 0.5, 0.5, 0.5], [10, 30, 20, 20], rate=0.001)
    assert bias == pytest.approx([0.501, 0.499, 0.5, 0.5], rel=1e-15)


@pytest.mark.parametrize("load", [[0.1] * 3, [0.7] * 10, [1e-3] * 7, [0.0] * 4])
def test_equal_loads_leave_the_bias_alone_though_their_mean_is_rounded(load):
    assert (update_bias(np.zeros(len(load)), load, rate=0.001) == 0).all()


def test_layers_are_updated_each_by_its_own_mean():
    load = np.array([[1, 3], [300, 100]])
    assert update_bias(np.zeros((2, 2)), load, rate=0.1).tolist() == [[0.1, -0.1], [-0.1, 0.1]]


def test_the_bias_given_is_not_changed():
    before = np.zeros(2)
    update_bias(before, [1, 2], rate=1.0)
    assert before.tolist() == [0, 0]


def test_updating_after_every_batch_balances_a_skewed_router():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 16)) + np.linspace(-1, 1, 16)
    spec = RouterSpec("v3", 16, 4)
    bias, violation = np.zeros(16), []
    for _ in range(80):
        load = expert_load(route(logits, spec, bias).expert_ids, 16)
        violation.append(max_violation(load))
        bias = update_bias(bias, load, rate=0.01)
    assert violation[0] > 0.8
    assert max(violation[-5:]) < 0.12


@pytest.mark.parametrize(("bias", "load"), [([0, 0], [1, 2, 3]), (0.0, 1.0), ([0, 0], [1, -1]), ([0, 0], [1, np.nan])])
def test_loads_that_are_no_counts_per_bias_are_refused(bias, load):
    with pytest.raises(InputError) as error:
        update_bias(bias, load, rate=0.001)
    assert error.value.where == "load"
