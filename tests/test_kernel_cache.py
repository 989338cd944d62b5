"""Which sources a cache of compiled kernels belongs to, and that the package looks where the tests keep it."""

import os
import time
from pathlib import Path

import pytest

from moesim.compiling import is_compiled
from moesim.network import solve_flows
from moesim.network.exact.progress import advance
from tests.kernel_cache import FOLDER, digest, kernel_files, use_cache_of, with_imported

ROOT = Path(__file__).parents[1]
FILES = {
    "compiling.py": "import numba\n",
    "stage/compiling.py": "from numba import njit\nkernel = njit(cache=True)\n",
    "stage/loop.py": "from moesim.stage.compiling import kernel\nfrom moesim.stage import (\n    sizes,\n    words)\n",
    "stage/sizes.py": "from moesim.stage.units import BYTE\nLANES = 16\n",
    "stage/units.py": "BYTE = 8\n",
    "stage/words.py": "NAME = 'loop'\n",
    "stage/plain.py": "from moesim.stage.loop import kernel\n",
    "stage/__init__.py": "",
}


@pytest.fixture
def package(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "moesim" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_an_edit_of_what_kernels_are_made_of_makes_another_state(package):
    inside = package / "moesim" / "stage"
    assert kernel_files(package) == [inside / "compiling.py", inside / "loop.py"]
    before = digest(package)
    for name in ("loop.py", "sizes.py", "units.py", "words.py"):
        with (inside / name).open("a") as file:
            file.write("ONE_MORE = 1\n")
        assert digest(package) != before, name
        before = digest(package)
    for name in ("stage/plain.py", "compiling.py"):
        (package / "moesim" / name).write_text("LANES = 8\n")
        assert digest(package) == before, name


def test_the_two_latest_states_are_kept(package, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "of this test run")
    states, sizes = [], package / "moesim" / "stage" / "sizes.py"
    for lanes in (16, 8, 4, 8):
        sizes.write_text(f"LANES = {lanes}\n")
        use_cache_of(package)
        states.append(Path(os.environ["NUMBA_CACHE_DIR"]))
        assert states[-1].parent == package / FOLDER
        time.sleep(0.01)
    assert states[1] == states[3] and len(set(states)) == 3
    assert set((package / FOLDER).iterdir()) == {states[2], states[3]}


def test_kernels_of_the_package_are_the_files_of_its_hot_loops():
    names = {path.relative_to(ROOT / "moesim").as_posix() for path in with_imported(ROOT, kernel_files(ROOT))}
    assert {"network/exact/max_min.py", "network/exact/state.py", "routing/select.py", "routing/lanes.py"} <= names
    assert not any(name.startswith(("cli/", "scenario/", "report/")) for name in names)


@pytest.mark.jit
def test_the_package_looks_for_compiled_kernels_where_the_tests_keep_them():
    solve_flows([1.0], [0.0], [0, 1], [0], [1.0], [0.0])
    cache = Path(os.environ["NUMBA_CACHE_DIR"])
    assert cache == ROOT / FOLDER / digest(ROOT)
    assert cache in Path(advance.stats.cache_path).parents
    assert is_compiled(advance) and list(Path(advance.stats.cache_path).glob("progress.advance-*.nbc"))
