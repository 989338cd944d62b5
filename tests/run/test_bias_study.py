"""The bias update by itself: logits fixed, load evening out."""

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.run.bias_study import bias_dynamics
from tests.run.small import recorded, scenario, small_recording


def test_the_bias_by_itself_evens_out_the_load():
    rows = bias_dynamics(
        scenario("losses.bias_rate=0.02", "routing.groups=1", "routing.top_groups=1"), steps=60, from_zero=True
    )
    assert [row["step"] for row in rows] == list(range(61))
    assert rows[0]["bias_spread"] == 0 and rows[0]["gate_mass_lost"] == pytest.approx(0, abs=1e-12)
    assert rows[-1]["max_violation"] < 0.35 * rows[0]["max_violation"]
    assert rows[-1]["gate_mass_lost"] > 0


def test_bias_dynamics_may_begin_with_the_recorded_bias(tmp_path):
    rows = bias_dynamics(recorded(small_recording(tmp_path / "made-up.npz")), steps=1, from_zero=False)
    assert rows[0]["bias_spread"] > 0.1


def test_a_router_without_bias_or_a_workload_without_logits_has_no_bias_dynamics(tmp_path):
    with pytest.raises(InputError, match="v1 router has no bias"):
        bias_dynamics(scenario("routing.kind=v1", "routing.groups=1", "routing.top_groups=1"), 1, True)
    np.save(tmp_path / "ids.npy", np.array([[0, 1, 2, 3]], np.int32))
    given = scenario(workload={"expert_ids": str(tmp_path / "ids.npy"), "tokens_per_rank": 1})
    with pytest.raises(InputError, match="without logits"):
        bias_dynamics(given, 1, True)
