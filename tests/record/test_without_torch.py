import importlib
import sys

import pytest

from moesim.errors import ResourceError


def test_without_torch_recording_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("moesim.record.") or name == "moesim.record"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ResourceError, match=r"pip install 'moesim\[lab\]'") as caught:
        importlib.import_module("moesim.record")
    assert caught.value.exit_code == 3
