import importlib
import sys

import pytest

from moesim.errors import ResourceError


@pytest.fixture
def fresh(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("moesim.record.") or name == "moesim.record"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    return importlib.import_module("moesim.record")


def test_without_torch_recording_says_what_to_install(fresh):
    with pytest.raises(ResourceError, match=r"pip install 'moesim\[lab\]'") as caught:
        from moesim.record import record  # noqa: F401
    assert caught.value.exit_code == 3


def test_without_torch_the_package_says_what_it_has(fresh):
    assert fresh.record_routing.__name__ in fresh.__all__
    with pytest.raises(AttributeError, match="no attribute 'records'"):
        _ = fresh.records
