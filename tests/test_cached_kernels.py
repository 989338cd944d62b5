"""Kernels out of numba's cache without its registries: the same values, and numba's own way where anything is odd."""

import subprocess
import sys

import pytest

from moesim import cached_kernels, compiling

pytestmark = pytest.mark.jit

RUN = """
import sys
import numpy as np
import moesim.cached_kernels
{first}
from moesim.traffic import count_copies
from moesim.network import solve_flows
from moesim.routing import RouterSpec, route
rng = np.random.default_rng(0)
slots = rng.integers(-1, 16, (64, 4))
copies = count_copies(slots, np.arange(64) % 8, np.arange(16) // 2, 8, 4, "node")
finish = solve_flows([3.0, 2.0], [0.0, 0.1], [0, 1, 3, 4], [0, 0, 1, 1], [4.0, 5.0, 6.0], [0.0, 0.0, 0.5])
routed = route(rng.normal(size=(64, 64)).astype(np.float32), RouterSpec("v3", 64, 8, 8, 4))
print(copies.tolist(), finish.tolist(), routed.expert_ids.sum(), float(routed.gates.sum()).hex())
print("numba.np.arrayobj" in sys.modules, "scipy.linalg" in sys.modules)
"""
UNKNOWN = 'moesim.cached_kernels.KNOWN = ("0.0.",)'
BROKEN = """
import moesim.compiling
moesim.compiling._numba()
from numba.core import caching
kept = caching.FunctionCache._load_overload
def load(self, signature, target):
    if "numba.np.arrayobj" not in sys.modules:
        raise AttributeError("another numba")
    return kept(self, signature, target)
caching.FunctionCache._load_overload = load
"""


def said(first=""):
    code = RUN.format(first=first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def usual():
    said(UNKNOWN)  # fills the cache
    return said(UNKNOWN)


def test_cached_kernels_give_the_same_values_without_the_registries(usual):
    import numba

    if not numba.__version__.startswith(cached_kernels.KNOWN):
        pytest.skip("numba's own way in this version")
    values, registries = said()
    assert values == usual[0]
    assert registries == "False False"


def test_an_unknown_numba_takes_its_own_way(usual):
    assert usual[1].startswith("True")


def test_whatever_goes_wrong_numba_takes_its_own_way(usual):
    values, registries = said(BROKEN)
    assert values == usual[0] and registries.startswith("True")


def test_a_kernel_that_is_not_cached_compiles_after_others_were_loaded(tmp_path):
    (tmp_path / "fresh.py").write_text(
        "from moesim.compiling import njit\n\n\n@njit(cache=True)\ndef half(x):\n    return x.sum() / 2\n"
    )
    first = f"sys.path.insert(0, {str(tmp_path)!r})"
    after = RUN.format(first=first) + "\nfrom fresh import half\nprint(half(np.arange(5.0)), half(np.arange(5)))"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", after], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "5.0 5.0"


def test_a_process_settles_once_whether_its_kernels_are_compiled():
    code = (
        "from moesim import compiling\nprint(compiling.interpret(), compiling.interpreted())\n"
        "import moesim.routing\nimport sys\nprint('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]
    assert not compiling.interpreted() and not compiling.interpret()  # too late in this process
