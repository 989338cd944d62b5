"""The other verbs: help, explain, trace, report, compare, topo, kernels, bw, place, balance, schema."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from moesim import __version__
from moesim.cli.app import program

ROOT = Path(__file__).parents[2]


def verbs(command, path=()):
    for name, sub in getattr(command, "commands", {}).items():
        yield from verbs(sub, (*path, name)) if getattr(sub, "commands", None) else [(*path, name)]


VERBS = list(verbs(typer.main.get_command(program())))


def test_the_verbs_of_the_contract_are_there():
    expected = {"run", "report", "compare", "explain", "trace", "schema", "bw", "place", "balance", "record"}
    assert expected | {"topo", "kernels"} <= {verb[0] for verb in VERBS}


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_s_help_has_an_example_that_begins_with_its_name(verb):
    shown = CliRunner().invoke(program(), [*verb, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert shown.exit_code == 0
    assert f"Example: moesim {' '.join(verb)}" in " ".join(shown.output.split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(option):
    code = (
        f"import sys; sys.argv = ['moesim', {option!r}]\nfrom moesim.cli import main\n"
        "try: main()\nexcept SystemExit as left: print(left.code, *sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    exit_code, *modules = done.stderr.split()
    assert exit_code == "0" and done.stdout.strip()
    heavy = {"numpy", "pandas", "matplotlib", "numba", "networkx", "bokeh", "scipy", "distributed", "torch", "pyarrow"}
    assert not heavy & set(modules)


def test_the_version_is_the_package_s(moesim):
    assert moesim("--version").out == f"moesim {__version__}\n"


def test_explain_takes_a_number_apart(moesim, run_folder):
    done = moesim("explain", run_folder, "dispatch_time_s")
    assert done.code == 0 and done.out.startswith("dispatch_time_s = ") and "SMs" in done.out
    wrong = moesim("explain", run_folder, "dispatch_time")
    assert wrong.code == 2 and "did you mean dispatch_time_s?" in wrong.err


def test_trace_names_the_file_or_unpacks_it(moesim, run_folder, here):
    assert moesim("trace", run_folder).out.strip() == str(run_folder / "trace.json.gz")
    assert moesim("trace", run_folder, "--out", "deep/trace.json").code == 0
    assert json.loads((here / "deep/trace.json").read_text())["otherData"]["scenario"] == "small"


def test_report_of_one_run_and_of_several(moesim, run_folder, here):
    for name in ("before", "after"):
        assert moesim("run", "small.yaml", "-q", "--out", f"{name}/run", "-o", f"name={name}").code == 0
    assert moesim("report", run_folder, "--out", "one.html").code == 0
    done = moesim("report", "before/run", "after/run", "--baseline", "before/run", "--out", "two.html")
    assert done.code == 0 and done.out == "two.html\n"
    page = (here / "two.html").read_text()
    assert "before/run" in page and "after/run" in page  # two folders called "run" keep their paths
    assert (here / "one.html").stat().st_size > 10_000


def test_compare_prints_what_differs_and_fails_over_a_limit(moesim, run_folder, here, no_pages):
    assert (
        moesim(
            "run", "small.yaml", "-q", "--out", "slow", "-o", "schedule.start_offset=[0us,0us,0us,0us,0us,0us,0us,1ms]"
        ).code
        == 0
    )
    same = moesim("compare", run_folder, run_folder, "--fail-over", "0%")
    assert same.code == 0
    done = moesim("compare", run_folder, "slow", "--fail-over", "5%")
    assert done.code == 4 and "layer_time_s" in done.out and "worse" in done.out
    assert re.match(r"\w+ is worse by \d+\.\d %, more than 5 %\n", done.err)
    assert moesim("compare", "slow", run_folder, "--fail-over", "5").code == 0
    rows = json.loads(moesim("compare", run_folder, "slow", "--json").out)["rows"]
    layer = next(row for row in rows if row["key"] == "layer_time_s")
    assert layer["b"] > layer["a"] and layer["verdict"] == "worse"
    for limit in ("five", "nan", "inf", ""):
        assert moesim("compare", run_folder, "slow", "--fail-over", limit).code == 2


def test_topologies_are_listed_shown_and_drawn(moesim, here):
    names = moesim("topo", "list").out.split()
    assert {path.stem for path in (ROOT / "topologies").glob("*.yaml")} == set(names)
    shown = moesim("topo", "show", "hgx-h800", "--draw", "hgx.svg")
    assert shown.code == 0 and "200 GB/s" in shown.out and (here / "hgx.svg").read_text().startswith("<?xml")
    json.loads(moesim("topo", "show", "hgx-h800", "--json").out)
    assert "did you mean" in moesim("topo", "show", "hgx-h80").err


def test_kernel_tables_are_listed_and_shown(moesim):
    listed, shown = moesim("kernels", "list"), moesim("kernels", "show", "h800")
    assert listed.code == shown.code == 0 and "h800" in listed.out and "grouped_gemm" in shown.out
    assert moesim("kernels", "show", "h8000").code == 2


def test_bw_prints_a_row_per_size_and_writes_them_as_json(moesim, here):
    done = moesim("bw", "hgx-h800", "-b", "1MiB", "-e", "4MiB", "--json", "rows.json")
    assert done.code == 0
    sizes = [int(line.split()[0]) for line in done.out.splitlines() if line[:1].isdigit()]
    assert sizes == [1 << 20, 2 << 20, 4 << 20]
    rows = json.loads((here / "rows.json").read_text())["rows"]
    assert [row["size"] for row in rows] == sizes and rows[0]["nic"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("bw", "hgx-h800", "-a", "deepep-normal"),
        ("bw", "hgx-h800", "-a", "ring"),
        ("bw", "hgx-h800", "-b", "4MiB", "-e", "1MiB"),
        ("bw", "hgx-h800", "-b", "1B"),
        ("bw", "hgx-h800", "-b", "much"),
        ("bw", "hgx-h800", "-g", "9"),
        ("bw", "hgx-h800", "-g", "0"),
        ("bw", "nowhere"),
    ],
    ids=" ".join,
)
def test_a_bandwidth_table_that_makes_no_sense_is_refused(moesim, here, arguments):
    done = moesim(*arguments)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and done.out == ""


def test_place_says_whether_another_placement_pays(moesim, here):
    done = moesim("place", "small.yaml", "--redundant", 0, "--redundant", 8, "--out", "place.html")
    assert done.code == 0 and "eplb_global, 8 redundant" in done.out and "report: place.html" in done.out
    verdict = json.loads(moesim("place", "small.yaml", "--redundant", 0, "--redundant", 8, "--json", "-q").out)
    assert done.out.splitlines()[0] == verdict["sentence"]
    assert verdict["sentence"] in " ".join((here / "place.html").read_text().split())
    rows = {row["placement"]: row for row in verdict["options"]}
    assert next(iter(rows)) == "contiguous" and {"greedy", "eplb_global", "lp, 8 redundant"} <= set(rows)
    assert moesim("place", "small.yaml", "--redundant", 3).code == 2
    assert moesim("place", "small.yaml", "--write", "json").code == 2


def test_balance_prints_how_the_bias_evens_out_the_load(moesim, here):
    alone = ("balance", "small.yaml", "--logits-fixed", "--steps", 30)
    rows = json.loads(moesim(*alone, "-o", "losses.bias_rate=0.02", "--json").out)
    assert rows[-1]["step"] == 30 and rows[-1]["max_violation"] < rows[0]["max_violation"]
    assert "30" in moesim(*alone).out.splitlines()[-1]
    assert "v1 router has no bias" in moesim(*alone, "-o", "routing={kind: v1, top_k: 4}").err


def test_balance_simulates_a_training_run_and_writes_its_page(moesim, here):
    short = ("balance", "small.yaml", "--steps", 4, "--every", 2, "--sequences", 2, "--length", 16)
    done = moesim(*short, "--out", "page")
    assert done.code == 0 and "report: page/report.html" in done.out
    assert "an illustration" in done.out and "of a uniform router" in done.out
    data = json.loads((here / "page" / "balance.json").read_text())
    assert [(row["method"], row["step"]) for row in data["rows"]] == [
        (method, step) for method in ("v1", "v2", "v3") for step in (0, 2, 4)
    ]
    assert json.loads(moesim(*short, "--json").out) == data
    assert moesim(*short, "--method", "v1,v9").code == 2
    groups = moesim(*short, "--fit", "tiny-none")
    assert groups.code == 2 and "-o model.n_experts=64" in groups.err


def test_the_schema_is_json_and_knows_the_sections(moesim):
    schema = json.loads(moesim("schema").out)
    assert {"cluster", "routing", "workload", "thresholds"} <= set(schema["properties"])


def test_recording_without_torch_is_exit_3(moesim, here, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest))
    done = moesim("record", "--out", "mine.npz")
    assert done.code == 3 and "pip install 'moesim[lab]'" in done.err
    assert not (here / "mine.npz").exists()


def test_no_colour_where_no_color_is_set(run_folder, here, monkeypatch, moesim, no_pages):
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = moesim("run", "small.yaml", "-q", "--out", "run").out
    monkeypatch.setenv("NO_COLOR", "1")
    plain = moesim("run", "small.yaml", "-q", "--out", "run").out
    assert re.search(r"\x1b\[[\d;]*3\d", coloured) or "\x1b[1m" in coloured
    assert not re.search(r"\x1b\[(3\d|[\d;]*;3\d)", plain)


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -c 'from moesim.cli import main; main()' schema | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "{\n" and done.stderr == ""
