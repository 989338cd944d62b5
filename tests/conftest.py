import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.kernel_cache import use_cache_of

use_cache_of(Path(__file__).parents[1])
# What is collected stays to the end: looking for garbage in it is a third of the time that collecting takes.
gc.disable()
# An example that takes long on a busy machine is no fault.
settings.register_profile("moesim", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("moesim")
# One process runs many tests, and settles once whether its kernels are interpreted.
os.environ |= {"MOESIM_INTERPRET": "0", "MOESIM_BACKGROUND": "0"}


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    """Say nothing of a terminal's width: workers of a parallel test run are told that it is 80."""
    monkeypatch.delenv("COLUMNS", raising=False)
