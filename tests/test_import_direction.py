"""Imports run one way along the flow of data: who may import whom, read from the source."""

import ast
import functools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "moesim"

SHARED = {"errors", "units", "compiling", "csr", "warm_up", "bounded_text", "broken_files"}
STAGES = {"routing", "balance", "placement", "traffic", "compute", "cluster", "network", "model", "workload"}
FILES = {
    "files",
    "output_folder",
    "located_yaml",
    "mistakes",
    "recording_format",
    "dumps",
    "numpy_file",
    "parquet_file",
}

# What each part of the package may import of the others, beside what all share.
MAY_IMPORT = {
    "routing": set(),
    "balance": {"routing"},  # the router's knobs and its affinities, from which the losses follow
    "placement": {"files", "located_yaml", "placement_policies"},  # maps are JSON and YAML; the policies' names
    "traffic": {"cluster", "alltoall_library", "located_yaml", "mistakes"},  # the Fabric; sets of constants are YAML
    "network": {"cluster"},
    "compute": {"parquet_file", "located_yaml"},  # kernel times of other tools; its data are YAML
    "topology_files": {"cluster", "located_yaml"},  # what is written is checked as any topology
    "cluster": {"files", "located_yaml", "mistakes", "regular_clusters", "placement_policies"},  # pictures are written
    "model": {"located_yaml", "mistakes"},
    "workload": {"recording_format", "dumps"},
    "dumps": {"recording_format", "files", "numpy_file", "parquet_file"},  # files that others wrote, as one trace
    "timeline": {"network", "cluster", "traffic", "stages", "alltoall_library"},  # of traffic the flows of a phase
    "stages": set(),  # the list of a layer's stages: names and colours, without numpy
    # Of the last five the names.
    "scenario": {
        "located_yaml",
        "mistakes",
        "model",
        "stages",
        "alltoall_library",
        "placement_policies",
        "regular_clusters",
        "fault_kinds",
    },
    # Tokens, routing and load of a layer; then what traces say; then the loop that has both.
    "layer": STAGES
    | FILES
    | {"results", "scenario", "stages", "alltoall_library", "placement_policies", "fault_kinds"},
    "measure": STAGES | FILES | {"timeline", "results", "scenario", "stages", "layer"},
    "run": STAGES
    | FILES
    | {"timeline", "results", "scenario", "stages", "layer", "measure", "placement_policies", "fault_kinds"},
    "results": {"files", "output_folder", "numpy_file", "stages"},
    "report": {"results", "files", "stages"},
    "record": {"routing", "balance", "recording_format", "files", "dumps"},
    "alltoall_library": set(),  # facts about libraries, for the scenario (no arrays there) and for the stages alike
    "placement_policies": set(),  # names alone, for the scenario, which loads no arrays
    "fault_kinds": set(),  # names and keys alone, likewise
    "regular_clusters": {"located_yaml", "mistakes"},  # names of clusters, for the scenario and for cluster alike
    "files": set(),
    "output_folder": {"files"},
    "located_yaml": {"mistakes"},
    "mistakes": {"located_yaml"},  # the type alone
    "recording_format": {"files", "numpy_file"},
    "numpy_file": set(),
    "parquet_file": set(),
    "parquet_child": set(),  # a process of its own
    "broken_files": set(),
    "bounded_text": set(),
    "logs": {"mistakes"},  # text to rows, before anything is simulated
    "spawn": set(),
    "errors": set(),
    "compiling": {"cached_kernels"},
    "cached_kernels": set(),
    "warm_up": set(),  # processes of their own run what it names
    "csr": set(),
    "units": set(),
}
ON_TOP = {"cli", "sweeps", "validate", "__main__"}
ABOVE_THE_STAGES = ("layer", "measure", "run", "results", "report", "cli", "sweeps", "validate", "record", "profile")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imports(path: Path, at_once: bool = False) -> set[tuple[str, ...]]:
    """Modules that a file imports, as tuples of names; with ``at_once`` only those that loading the file loads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    skipped = {id(node) for block in later for node in ast.walk(block)} if at_once else set()
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            base = tuple(node.module.split("."))
            found |= {(*base, alias.name) for alias in node.names} if base == ("moesim",) else {base}
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}: a relative import")
    return found


def of_moesim(path: Path) -> set[str]:
    return {names[1] for names in imports(path) if names[0] == "moesim" and len(names) > 1} - {"__version__"}


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_what_stands_before_it(path):
    part = part_of(path)
    used = of_moesim(path) - SHARED - {part}
    if part not in ON_TOP | {"profile"}:
        assert part in MAY_IMPORT, f"{part} is new: say here what it may import"
        assert used <= MAY_IMPORT[part], f"{part} imports {sorted(used - MAY_IMPORT[part])}"
    assert not used & (ON_TOP - {part}) or part in ("cli", "__main__"), f"{part} imports what sits on top"
    if part not in ON_TOP | {"report"}:
        assert "report" not in used


def test_the_package_imports_nothing_that_stands_beside_it():
    beside = {"refit", "benchmarks", "tests", "docs"}
    assert not [path for path in SOURCES if {names[0] for names in imports(path)} & beside]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_other_packages_are_entered_by_their_face(path):
    # A verb of the command line loads the one module that it needs, when it is called.
    if part_of(path) == "cli":
        return
    past = {names for names in imports(path) if names[0] == "moesim" and len(names) > 2 and names[1] != part_of(path)}
    assert not past


def test_a_result_alone_reaches_up_and_only_to_show_itself():
    # The package's face names who makes pages: what is said there is said once, and results import no report.
    faced = [path for path in SOURCES if ("moesim",) in imports(path) and part_of(path) not in ("record", "profile")]
    assert faced == [PACKAGE / "results" / "placement.py", PACKAGE / "results" / "result.py"]
    for path in faced:
        assert not {names for names in imports(path, at_once=True) if names == ("moesim",)}
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        inside = [one.name for one in functions if "import moesim\n" in ast.unparse(one)]
        assert inside == ["_repr_html_"]


def test_no_two_modules_share_their_name():
    # Verbs of the command line are named by what they call.
    stems = Counter(path.stem for path in SOURCES if part_of(path) != "cli")
    assert {name for name, count in stems.items() if count > 1} <= {"__init__", "__main__"}


def test_the_stages_know_nothing_of_scenarios_and_results():
    for path in SOURCES:
        if part_of(path) in STAGES:
            assert not of_moesim(path) & {"scenario", *ABOVE_THE_STAGES}, path


def test_the_scenario_imports_no_array_library():
    for path in SOURCES:
        if part_of(path) in (
            "scenario",
            "alltoall_library",
            "placement_policies",
            "regular_clusters",
            "stages",
            "located_yaml",
            "mistakes",
            "units",
            "errors",
            "model",
        ):
            libraries = {names[0] for names in imports(path)}
            assert not libraries & {"numpy", "pandas", "numba", "scipy", "networkx", "pyarrow", "matplotlib"}, path


def test_heavy_libraries_are_imported_where_they_are_needed_and_not_at_the_top():
    home = {"jinja2": {"report"}, "bokeh": {"report"}, "matplotlib": {"report"}, "torch": {"record", "profile"}}
    for path in SOURCES:
        at_once = {names[0] for names in imports(path, at_once=True)}
        for library in {"pandas", "pyarrow", "networkx", "matplotlib", "bokeh", "jinja2", "torch"} & at_once:
            assert part_of(path) in home.get(library, ()), path


LIGHT = {
    "moesim": ("numpy", "pydantic"),
    "moesim.alltoall_library": ("numpy", "pydantic"),
    "moesim.profile": ("numpy", "pydantic", "torch"),
    "moesim.profile.command": ("numpy", "pydantic", "torch"),
    "moesim.record": ("torch", "transformers", "pandas", "numba"),
    "moesim.cli": ("numpy", "pandas", "pydantic", "matplotlib", "numba", "networkx", "bokeh", "scipy", "simpy"),
    "moesim.scenario": ("numpy", "pandas", "matplotlib", "numba", "networkx", "bokeh", "scipy", "simpy"),
    "moesim.run": ("pandas", "matplotlib", "networkx", "bokeh", "pyarrow", "jinja2"),  # numba looks for scipy
    "moesim.results": ("pandas", "matplotlib", "networkx", "bokeh", "scipy", "pyarrow", "numba"),
}


@pytest.mark.parametrize("module", LIGHT)
def test_importing_a_package_loads_no_more_than_it_must(module):
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not set(loaded.split()) & set(LIGHT[module])


def test_a_quick_answer_loads_no_library_and_no_verb_that_it_can_do_without():
    code = (
        "import sys; sys.argv[1:] = ['run', 'quickstart', '--quick']\nfrom moesim.cli import main\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    around = {name: value for name, value in os.environ.items() if name != "MOESIM_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=around, capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    heavy = {"numba", "scipy", "pandas", "pyarrow", "matplotlib", "bokeh", "jinja2", "distributed"}
    assert "moesim.run.quick_answer" in loaded
    assert not loaded & (heavy | {f"moesim.cli.{verb}" for verb in ("sweep", "compare", "validate")})
    # Each module takes about a millisecond of a user's wait.
    assert sum(name.startswith("moesim") for name in loaded) <= 300
