"""``moesim plan`` and ``run --quick`` as a user types them."""

import json

import pytest

from moesim.sweeps import _given
from tests.cli.conftest import STEP

FEW = ("-p", "parallel.ep=8", "-p", "workload.requests=16,32", "-p", "schedule.overlap=none,hooks", "-q")


@pytest.fixture
def planned(moesim, here, monkeypatch):
    """Plan in this process, with this process as the one worker."""
    monkeypatch.setattr("moesim.cli.plan.workers_for", lambda *_, **__: _given(None, 1))
    (here / "step.yaml").write_text(STEP)
    return lambda *arguments: moesim("plan", "step.yaml", *FEW, *arguments)


@pytest.mark.jit
def test_a_plan_prints_the_best_deployment_and_writes_a_page_with_every_point(planned, here):
    done = planned("--limit", "tpot_s < 1s", "--limit", "memory_free_bytes > 4GB", "--out", "out")
    assert done.code == 0, done.err
    assert done.out.startswith("Best is EP8, deepep-low-latency") and "bound by" in done.out
    page, answer = (here / "out/report.html").read_text(), json.loads((here / "out/answer.json").read_text())
    assert "free memory" in page and "time per output token" in page and answer["answer"] in page.replace("&lt;", "<")
    assert len(answer["table"]) == answer["points"] and answer["margin"] >= 0.03
    again = planned("--limit", "tpot_s < 1s", "--limit", "memory_free_bytes > 4GB", "--out", "out", "--json")
    assert {key: value for key, value in json.loads(again.out).items() if key != "out"} == answer


@pytest.mark.jit
def test_limits_that_nothing_keeps_are_exit_4_and_the_quickest_is_named(planned):
    done = planned("--limit", "tpot_s < 1us", "--out", "out")
    assert done.code == 4
    assert done.out.startswith("No deployment keeps tpot_s < 1us: the quickest is EP8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("small.yaml",), "a plan needs whole steps of inference"),
        (("step.yaml", "--limit", "tpot < 1s"), "--limit: no number 'tpot' in a summary"),
        (("step.yaml", "--limit", "tpot_s < 50"), "--limit"),
        (("step.yaml", "--gpus", "64"), "64 GPUs of 8"),
        (("step.yaml", "-p", "parallel.ep=3"), "no groups of 3"),
        (("step.yaml", "-p", "parallel.epp=8"), "parallel.epp"),
    ],
)
def test_a_wrong_plan_is_one_line_and_exit_2(moesim, here, arguments, said):
    (here / "step.yaml").write_text(STEP)
    done = moesim("plan", *arguments)
    assert done.code == 2 and said in done.err and len(done.err.strip().splitlines()) == 1
    assert not (here / "results").exists()


def test_a_quick_run_says_so_and_writes_nothing(moesim, here):
    done = moesim("run", "small.yaml", "--quick")
    assert done.code == 0, done.err
    assert "quick answer, no event engine" in done.out and "layer" in done.out
    shown = moesim("run", "small.yaml", "--quick", "--json")
    assert json.loads(shown.out)["quick"] is True and json.loads(shown.out)["layer_time_s"] > 0
    refused = moesim("run", "small.yaml", "--quick", "--out", "x")
    assert refused.code == 2 and "--out has no effect with --quick" in refused.err
    assert sorted(path.name for path in here.iterdir()) == ["small.yaml"]
