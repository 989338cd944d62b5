import pytest

from moesim.profile.csv_columns import COLUMNS, SCHEMA_VERSION
from moesim.profile.points import Point


@pytest.fixture
def one_thread():
    """PyTorch on one thread: what is small waits longer for a second one than it gains."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def row():
    """Makes a row of a table without PyTorch: a timed one unless told otherwise."""

    def make(point=None, cache="cold", **values):
        point = point or Point("copy", dtype="", tokens=4096)
        own = {"schema_version": str(SCHEMA_VERSION), "median_us": "2.5", "status": "ok", "device": "a GPU"}
        if point.load_shape:
            own["largest_load"] = str(max(point.loads()))
        return dict.fromkeys(COLUMNS, "") | own | point.fields(cache) | values

    return make
