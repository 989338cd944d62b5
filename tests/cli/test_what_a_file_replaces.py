"""What a verb writes takes the place of a file of the same kind as moesim wrote it, and of nothing else."""

import inspect
import itertools
import json
import os
import stat
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from moesim.cli.app import program
from moesim.errors import ResourceError
from moesim.recording_format import read_recording, write_recording
from tests.attacks.formats import FOREIGN, TOPO_M
from tests.attacks.formats import ROWS as MEASURED

DRAWN = ("-o", "workload.tokens_per_rank=8")
# Verb and option, the place with its ending, and whether the form has comments, or else room for a mark at all.
WRITES = {
    "report --out": ("page.html", "mark", ("report", "RUN")),
    "compare --out": ("page.html", "mark", ("compare", "RUN", "RUN")),
    "place --out": ("page.html", "mark", ("place", "small.yaml", "-q")),
    "validate --page": ("page.html", "mark", ("validate", "--table", "deepep")),
    "trace --out": ("trace.json", "text", ("trace", "RUN")),
    "topo show --draw": ("rail.svg", "mark", ("topo", "show", "hgx-h800")),
    "topo show --draw: png": ("rail.png", "mark", ("topo", "show", "hgx-h800")),
    "kernels plot --out": ("plot.svg", "mark", ("kernels", "plot", "h800", "grouped_gemm_fp8", "--experts", 4)),
    "topo import --out": ("node.yaml", "text", ("topo", "import", "host.txt", "--gpu", "h100", "--nic", "400Gb/s")),
    "topo export --out: astra-sim": ("net.yml", "text", ("topo", "export", "hgx-h100", "--form", "astra-sim")),
    "topo export --out: nccl-xml": ("topo.xml", "text", ("topo", "export", "hgx-h100", "--form", "nccl-xml")),
    "kernels import --out": ("table.csv", "text", ("kernels", "import", "foreign.csv", "--gpu", "h100")),
    "calibrate --out": ("set.yaml", "text", ("calibrate", "rows.csv", "-a", "nccl-direct", "-g", "h100")),
    "bw --json": ("bw.json", "text", ("bw", "hgx-h800", "-b", "1MiB", "-e", "2MiB")),
    "place --out: json": ("map.json", "text", ("place", "small.yaml", "-q", "--write", "json")),
    "place --out: tensorrt-llm": ("map.yaml", "text", ("place", "small.yaml", "-q", "--write", "tensorrt-llm")),
    "place --out: sglang": ("map.json", "", ("place", "small.yaml", "-q", "--write", "sglang")),
    "replay export --out": ("matrix.txt", "", ("replay", "export", "RUN")),
    "routing import --out": ("trace.npz", "mark", ("routing", "import", "small.yaml", *DRAWN)),
    "routing export --out: npz": ("plain.npz", "mark", ("routing", "export", "small.yaml", *DRAWN)),
    "routing export --out: parquet": (
        "table.parquet", "mark", ("routing", "export", "small.yaml", "--form", "parquet", *DRAWN),
    ),
    "routing export --out: topk_idx": (
        "ids.npy", "", ("routing", "export", "small.yaml", "--form", "topk_idx", *DRAWN),
    ),
}  # fmt: skip
# These write folders, or need PyTorch and are tested with what they train or time.
ELSEWHERE = {"run --out", "sweep --out", "plan --out", "what-breaks --out", "balance --out", "record --out",
             "profile --out"}  # fmt: skip
READ = {
    "run --load", "report --baseline", "sweep --scheduler-file", "plan --scheduler-file",
    "what-breaks --scheduler-file", "validate --reference", "validate --rows",
    "kernels plot --table", "replay import --matrix", "routing import --map", "routing show --map",
    "routing check --against",
}  # fmt: skip
PLACES = {
    "a text": lambda place: place.write_text("mine\n"),
    "a folder": lambda place: (place.mkdir(), (place / "thesis.tex").write_text("mine")),
    "a link to nothing": lambda place: place.symlink_to("nowhere"),
    "a link to a device": lambda place: place.symlink_to(os.devnull),
}
CONTENTS = {
    "nothing in it": lambda place: place.write_bytes(b""),
    "JSON with a schema": lambda place: place.write_text(json.dumps({"schema": {"fields": []}, "data": []})),
    "a comment about moesim": lambda place: place.write_text("# moesim, topology, of the third floor\na: 1\n"),
    "a page": lambda place: place.write_text("<!doctype html><title>moesim</title>"),
    "a picture": lambda place: place.write_text('<?xml version="1.0"?><svg id="moesim"/>'),
    "arrays": lambda place: np.savez(place.open("wb"), moesim=np.zeros(3)),
    "a link to a file": lambda place: place.symlink_to("host.txt"),
    "a pipe": os.mkfifo,
}
ONE_OF_EACH_FORM = ("report --out", "trace --out", "topo show --draw", "topo export --out: nccl-xml",
                    "kernels import --out", "place --out: sglang", "routing export --out: npz",
                    "routing export --out: parquet")  # fmt: skip


def state(place):
    """What a place holds, whatever it is."""
    if place.is_symlink():
        return os.readlink(place), state(place.resolve()) if place.is_file() else None
    if place.is_dir():
        return {path.name: path.read_bytes() for path in place.iterdir()}
    return place.read_bytes() if place.is_file() else stat.S_IFMT(place.stat().st_mode)


@pytest.fixture
def inputs(here, monkeypatch):
    """What the verbs read; work that takes long and is not on trial gives its answer at once."""
    (here / "host.txt").write_text(TOPO_M)
    (here / "foreign.csv").write_text(FOREIGN)
    (here / "rows.csv").write_text(MEASURED)
    fit = SimpleNamespace(fit=lambda reference, families: {"models": [{"family": "dense"}]})
    monkeypatch.setitem(sys.modules, "moesim.compute.fitted.fit", fit)
    monkeypatch.setattr("moesim.validate.evaluate_rows.evaluate", lambda *_, **__: [])
    monkeypatch.setattr("moesim.validate.unseen.unseen", lambda *_: [])
    verdict = SimpleNamespace(to_json=dict, sentence=str)
    monkeypatch.setattr("moesim.run.placement_verdict.place_verdict", lambda *_: verdict)
    monkeypatch.setattr("moesim.cli.place._print", lambda _: print("verdict"))
    page = '<!doctype html><meta name="generator" content="moesim">'
    for drawn in ("render_placement", "render_run", "render_comparison"):
        monkeypatch.setattr(f"moesim.report.{drawn}", lambda *_, **__: page)
    return here


@pytest.fixture
def write(moesim, inputs, run_folder):
    """Run a verb with a place to write at."""

    def call(verb, place):
        words = [run_folder if word == "RUN" else word for word in WRITES[verb][2]]
        return moesim(*words, verb.partition(":")[0].split()[-1], place)

    return call


def test_every_option_that_names_a_file_is_one_to_read_or_is_tested_here():
    found = set()
    app = program()
    for group in (app, *(below.typer_instance for below in app.registered_groups)):
        for command in group.registered_commands:
            verb = [*([group.info.name] if group is not app else []), command.name or command.callback.__name__]
            for parameter in inspect.signature(command.callback).parameters.values():
                names = [name for name in getattr(parameter.default, "param_decls", None) or () if name[:2] == "--"]
                if names and "Path" in str(parameter.annotation):
                    found.add(f"{' '.join(verb).replace('_', '-')} {names[0]}")
    assert found == {name.partition(":")[0] for name in WRITES} | ELSEWHERE | READ


@pytest.mark.jit
@pytest.mark.parametrize("verb", WRITES)
def test_the_same_command_once_more_replaces_what_it_wrote(write, inputs, verb):
    place = inputs / WRITES[verb][0]
    first = write(verb, place)
    assert first.code == 0, first.err
    before = place.read_bytes()
    assert write(verb, place) == first and place.read_bytes() == before


@pytest.mark.jit
@pytest.mark.parametrize(
    ("verb", "theirs"),
    [*itertools.product(WRITES, PLACES), *itertools.product(ONE_OF_EACH_FORM, CONTENTS)],
)
def test_what_is_somebody_elses_is_refused_before_the_work_and_stays(write, inputs, verb, theirs):
    place = inputs / WRITES[verb][0]
    (PLACES | CONTENTS)[theirs](place)
    before, names = state(place), sorted(path.name for path in inputs.iterdir())
    done = write(verb, place)
    assert (done.code, done.out) == (3, "") and done.err.count("\n") == 1, done
    assert f"moesim: {place} exists" in done.err and "choose another place" in done.err
    assert state(place) == before and sorted(path.name for path in inputs.iterdir()) == names


@pytest.mark.jit
@pytest.mark.parametrize("verb", [verb for verb, (_, form, _) in WRITES.items() if form != "mark"])
def test_what_somebody_has_edited_is_theirs(write, inputs, verb):
    place = inputs / WRITES[verb][0]
    assert write(verb, place).code == 0
    place.write_bytes(edited := place.read_bytes() + b" ")
    done = write(verb, place)
    assert (done.code, done.out) == (3, "") and f"{place} exists" in done.err
    assert place.read_bytes() == edited


@pytest.mark.jit
@pytest.mark.parametrize("verb", WRITES)
def test_a_file_of_another_kind_is_not_replaced_although_it_is_moesims(write, inputs, run_folder, verb):
    place = inputs / WRITES[verb][0]
    others = [run_folder / name for name in ("summary.json", "flows.npz", "experts.parquet", "trace.json.gz")]
    others += [] if place.name == "page.html" else [run_folder / "report.html"]
    for other in others:
        place.write_bytes(other.read_bytes())
        done = write(verb, place)
        assert (done.code, done.out) == (3, "") and place.read_bytes() == other.read_bytes(), (other, done)


def test_a_recording_replaces_a_recording_alone(tmp_path):
    place = tmp_path / "mine.npz"
    tiny = read_recording("tiny-v3")
    for _ in range(2):
        write_recording(place, tiny)
    whole = place.read_bytes()
    np.savez(place, logits=np.zeros(3))
    theirs = place.read_bytes()
    with pytest.raises(ResourceError, match=r"mine\.npz exists and is not a recording as moesim wrote it"):
        write_recording(place, tiny)
    assert place.read_bytes() == theirs
    place.write_bytes(whole)
    assert read_recording(place).meta == tiny.meta
