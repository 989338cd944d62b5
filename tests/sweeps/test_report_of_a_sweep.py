"""What a sweep leaves beside its table: page, answer, figures; from Python and from the command line alike."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest
from small_sweep import SMALL, SMALL_YAML

import moesim
from moesim.cli import main
from moesim.errors import InputError
from moesim.scenario import load_scenario, parse_objective
from moesim.scenario.sweep_section import RandomPoints
from moesim.sweeps import drive, sweep
from moesim.sweeps.answers import answer, axes_named
from moesim.sweeps.report import base_point, command_for, snippet_for
from moesim.sweeps.space import space_of

AXES = {"routing.top_k": [2, 4], "routing.top_groups": [2, 3, 4]}
QUESTION = "How many groups for each K?"
BLOCK = {
    "question": QUESTION,
    "axes": AXES,
    "per": ["routing.top_k"],
    "objective": "layer_time_s where gate_mass_lost < 20%",
}
FILES = {"report.html", "answer.json", "points.parquet", "journal.sqlite"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "small.yaml").write_text(f"{SMALL_YAML}sweep: {json.dumps(BLOCK)}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def typed(here, monkeypatch, capsys):
    """Call the command line in this process, with this process as the one worker."""
    from moesim.cli import sweep as verb
    from moesim.sweeps import _given

    monkeypatch.setattr(verb, "workers_for", lambda *_: _given(None, 1))
    monkeypatch.setenv("COLUMNS", "240")

    def call(command):
        monkeypatch.setattr("sys.argv", ["moesim", *shlex.split(command)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return call


def test_question_and_answer_are_the_first_lines_of_the_terminal_and_in_the_page_and_the_answer(here, typed):
    code, out, _ = typed("sweep small.yaml --out out --figures -q")
    assert code == 0
    question, sentence = out.splitlines()[:2]
    assert question == QUESTION
    table = pd.read_parquet("out/points.parquet")
    within = table[table["gate_mass_lost"] < 0.2]
    best = within.loc[within.groupby("routing.top_k")["layer_time_s"].idxmin()]
    for _, row in best.iterrows():
        assert f"top_groups = {row['routing.top_groups']}" in sentence
    found = json.loads((here / "out/answer.json").read_text())
    assert (found["question"], found["answer"]) == (question, sentence)
    assert [one["best"]["point"] for one in found["best_per"]] == best["point"].tolist()
    assert [one["values"] for one in found["best_per"]] == [{"routing.top_k": 2}, {"routing.top_k": 4}]
    assert "best for each routing.top_k" in out
    html = (here / "out/report.html").read_text()
    assert html.index(QUESTION) < html.index(sentence.replace("<", "&lt;"))
    assert {path.suffix for path in (here / "out/figures").iterdir()} == {".svg", ".png"}
    printed = json.loads(typed("sweep small.yaml --out out --json -q")[1])
    rows = pd.DataFrame(printed.pop("table"))
    assert printed == {key: value for key, value in found.items() if key != "schema"} | {"out": "out"}
    # The points in the columns of the page's table, in full precision.
    assert rows["routing.top_k"].tolist() == table["routing.top_k"].tolist()
    for noun in ("expert", "rank", "node", "link"):
        assert rows[f"{noun}_load_max_over_mean"].tolist() == table[f"{noun}_load_max_over_mean"].tolist()
    for name in ("dispatch_algbw", "dispatch_nvlink_wire", "combine_busbw"):
        assert rows[f"{name}_bytes_per_s"].tolist() == table[f"{name}_bytes_per_s"].tolist()


def test_python_and_the_command_line_write_the_same_files(here, typed):
    assert typed("sweep small.yaml --out typed -q")[0] == 0
    sweep("small.yaml", out="called")
    assert {path.name for path in (here / "called").iterdir() if path.name[0] != "."} == FILES
    for name in FILES - {"journal.sqlite"}:
        assert (here / "typed" / name).read_bytes() == (here / "called" / name).read_bytes(), name


def test_another_question_or_grouping_is_the_same_sweep(here, typed, monkeypatch):
    assert typed("sweep small.yaml -q")[0] == 0
    monkeypatch.setattr(drive, "route_point", None)  # nothing may run again
    text = (here / "small.yaml").read_text().replace(QUESTION, "And now?").replace('"per": ["routing.top_k"], ', "")
    (here / "small.yaml").write_text(text)
    code, out, err = typed("sweep small.yaml -q")
    assert (code, err) == (0, "")
    assert out.startswith("And now?\nBest point is ")
    assert len(list((here / "results").iterdir())) == 1
    code, out, _ = typed("sweep small.yaml -q --per routing.top_groups -o 'sweep.question=null'")
    assert code == 0 and out.startswith(
        "Least layer time within gate_mass_lost < 20%: top_k = 2 for every top_groups ("
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"per": ["routing.topk"]}, "'routing.topk' is not an axis of this sweep; did you mean 'routing.top_k'?"),
        ({"question": "a\u0007b"}, "not a line of printable text"),
        ({"question": " "}, "not a line of printable text"),
        ({"question": "x" * 301}, "at most 300"),
    ],
)
def test_a_wrong_question_or_grouping_is_refused_with_its_place(here, typed, change, said):
    (here / "small.yaml").write_text(f"{SMALL_YAML}sweep: {json.dumps(BLOCK | change)}\n")
    code, _, err = typed("sweep small.yaml --out out")
    assert code == 2 and said in err and err.startswith("small.yaml:8:"), err
    assert not (here / "out").exists()


def test_a_grouping_by_no_axis_is_refused_before_anything_runs(here, typed, monkeypatch):
    monkeypatch.setattr(drive, "route_point", None)
    code, _, err = typed("sweep small.yaml --per routing.kind --out out")
    assert (code, err) == (2, "per: 'routing.kind' is not an axis of this sweep; did you mean 'routing.top_k'?\n")
    with pytest.raises(InputError, match="not an axis of this sweep"):
        sweep("small.yaml", per=["routing.kind"])


def test_the_best_of_each_group_is_what_looking_at_every_point_gives():
    space = space_of(None, {"routing.top_k": [2, 4], "seed": [0, 1, 2], "routing.top_groups": [1, 2]})
    rng = np.random.default_rng(0)
    import pyarrow as pa

    table = pd.DataFrame({
        "point": range(12), "status": ["ok"] * 11 + ["failed"], "layer_time_s": rng.random(12),
        "gate_mass_lost": rng.random(12), "rank_load_max_over_mean": rng.random(12),
    })  # fmt: skip
    objective = parse_objective("max layer_time_s where gate_mass_lost < 0.6")
    found = answer(
        space, objective, pa.Table.from_pandas(table), axes_named(space, ["routing.top_groups", "routing.top_k"])
    )
    assert found.per == (0, 2)
    table = table.join(pd.DataFrame([space.places(point) for point in range(12)], columns=["k", "s", "m"]))
    ok = table[(table["status"] == "ok") & (table["gate_mass_lost"] < 0.6)]
    for group in found.groups:
        ours = ok[(ok["k"] == group.places[0]) & (ok["m"] == group.places[1])]
        assert group.best == (None if ours.empty else ours.loc[ours["layer_time_s"].idxmax(), "point"])
    assert [group.places for group in found.groups] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_the_base_scenario_is_found_among_the_points_by_its_values():
    scenario = load_scenario(SMALL, ["cluster.nic_bandwidth=400Gb/s"])
    axes = {"routing.top_k": [2, 4], "cluster.nic_bandwidth": ["100Gb/s", "50GB/s"], "routing.kind": ["v1", "v3"]}
    assert base_point(scenario, space_of(None, axes)) == 0b111
    assert base_point(scenario, space_of(None, axes | {"seed": [1, 2]})) is None
    moved = space_of(None, None, [{"routing.top_k": [4, 2, 4], "routing.top_groups": [2, 4, 4]}])
    assert base_point(scenario, moved) == 2
    drawn = space_of(None, {"seed": "0..9"}, (), RandomPoints(points=3, seed=1))
    seeds = [drawn.values(point)["seed"] for point in range(3)]
    for seed in range(10):
        at = base_point(load_scenario(SMALL, [f"seed={seed}"]), drawn)
        assert at == (seeds.index(seed) if seed in seeds else None)


def test_the_snippet_of_a_point_gives_its_numbers():
    space = space_of(None, AXES)
    frame = sweep(SMALL, AXES)
    for given, source in (("scenario", SMALL), ("scenario.resolved()", load_scenario(SMALL))):
        text = snippet_for(load_scenario(SMALL), space, given)(4)
        result = eval(text, {"moesim": moesim, "scenario": source})  # noqa: S307 - our own text
        assert result.summary["layer_time_s"] == frame["layer_time_s"][4]
    assert command_for(load_scenario(SMALL), "a b.yaml", [], space)(0) == (
        "moesim run 'a b.yaml' -o routing.top_k=2 -o routing.top_groups=2 --out results/point-0"
    )
