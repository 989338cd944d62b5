"""What several tests of sweeps compare with."""

import pytest
from killed import HANGS_S, POINTS, begun, start


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """The table of the driver's sweep, run to its end in one process."""
    folder = tmp_path_factory.mktemp("whole")
    patch = pytest.MonkeyPatch()
    assert start(folder / "out", folder / "log", 1, patch).wait(HANGS_S) == 0
    patch.undo()
    assert begun(folder / "log") == POINTS
    return (folder / "out" / "points.parquet").read_bytes()
