"""What the parts of a scenario are: who shares a device in the balance losses."""

import numpy as np
import pytest

from moesim.layer import build_parts
from tests.run.small import EXPERTS, RANKS, scenario


@pytest.mark.parametrize(("groups", "devices"), [(1, RANKS), (2, 2), (8, 8)])
def test_the_devices_of_the_losses_are_the_routers_groups_and_without_any_the_ranks(groups, devices):
    parts = build_parts(scenario(f"routing.groups={groups}", "routing.top_groups=1"))
    np.testing.assert_array_equal(parts.loss_device, np.repeat(np.arange(devices), EXPERTS // devices))
