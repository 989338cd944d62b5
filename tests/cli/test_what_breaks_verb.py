"""The verb what-breaks as typed: sentence, table, page, JSON; run again it computes nothing, same bytes."""

import json

import pytest

from moesim.cli import what_breaks as verb
from moesim.sweeps import _given

TYPED = ("what-breaks", "small.yaml", "-q", "-o", "cluster.topology=h200-2x2-rail", "-o", "routing.groups=4")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr("moesim.cli.sweep.workers_for", lambda *_: _given(None, 1))
    monkeypatch.setattr(verb, "workers_for", lambda *_: _given(None, 1))


def test_the_worst_fault_is_said_printed_drawn_and_kept(here, moesim):
    done = moesim(*TYPED, "--out", "breaks")
    assert done.code == 0
    plain = json.loads((here / "breaks" / "what-breaks.json").read_text())
    assert done.out.startswith(plain["sentence"]) and "report: breaks/report.html" in done.out
    worst = next(one for one in plain["faults"] if one["how"] == "simulated")
    assert worst["cost_s"] == worst["time_s"] - plain["base_s"] > 0
    page = (here / "breaks" / "report.html").read_text()
    assert plain["sentence"].split(".")[0] in page and "data:image/svg+xml;base64," in page
    assert {"map.svg", "singles", "pairs"} < {path.name for path in (here / "breaks").iterdir()}
    for kind in {one["what"] for one in plain["faults"]}:
        assert kind in done.out

    before = {path.name: path.read_bytes() for path in (here / "breaks").iterdir() if path.is_file()}
    verb.workers_for = None  # whoever computed a point would need it
    again = moesim(*TYPED, "--out", "breaks", "--json")
    assert json.loads(again.out) == plain
    assert {path.name: path.read_bytes() for path in (here / "breaks").iterdir() if path.is_file()} == before


def test_what_is_not_ours_stays_and_nothing_is_computed(here, moesim):
    (here / "breaks").mkdir()
    (here / "breaks" / "map.svg").write_text("<svg>mine</svg>")
    done = moesim(*TYPED, "--out", "breaks")
    assert (
        done.code == 3 and "map.svg" in done.err and [path.name for path in (here / "breaks").iterdir()] == ["map.svg"]
    )


def test_harder_faults_cost_more_and_have_a_folder_of_their_own(here, moesim):
    found = [json.loads(moesim(*TYPED, "--json", *more).out) for more in ((), ("--gpu-factor", 4, "--link-factor", 8))]
    slow = [max(one["cost_s"] for one in plain["faults"] if " slower" in one["what"]) for plain in found]
    assert slow[1] > 2 * slow[0]
    assert len(list((here / "results").iterdir())) == 2


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--gpu-factor", "0.5"), 2, "gpu-factor"),
        (("--simulate", "1.5"), 2, "simulate"),
        (("-o", "faults=[{kind: dead_nic, where: n9.gpu0.nic}]"), 2, "n9.gpu0"),
    ],
)
def test_what_cannot_be_is_said_in_a_line_and_leaves_nothing(here, moesim, more, code, said):
    done = moesim(*TYPED, *more)
    assert done.code == code and said in done.err and not (here / "results").exists()
