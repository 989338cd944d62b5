"""The page and the notebook of a placement verdict."""

import dataclasses

import pytest

from moesim.report import render_placement
from moesim.results import Ageing, PlacementOption, PlacementVerdict, Value
from tests.report.test_notebook import rows_of, stands_alone
from tests.report.test_page import HOSTILE, Page


def option(policy, redundant, layer_s, off=0.005, moves=40.0, cost=0.7):
    ratio = layer_s / 1e-3
    saved_s = 58 * (1e-3 - layer_s)
    pays = cost / saved_s if saved_s > 0 else None
    return PlacementOption(
        policy=policy, redundant=redundant, loads={"rank": 1.2, "rank_itself": 1.1, "rank_learnt": None, "node": 1.05},
        layer_time_s=layer_s, layers_time_s=58 * layer_s, saved=Value(1 - ratio, 1 - ratio - off, 1 - ratio + off),
        apart=abs(1 - ratio) > off, moves=moves, moved_bytes=58 * moves * 44e6,
        migration_s={"blocking": cost} if moves else {}, break_even_steps={"blocking": pays} if moves else {},
        break_even_drifting_steps=pays and 1.1 * pays, hbm_bytes=redundant * 44e6 * 58,
        hbm_bytes_per_rank=redundant * 44e6 * 58 / 8,
    )  # fmt: skip


def made(*others, **changes):
    verdict = PlacementVerdict(
        scenario="toy", phase="prefill", learnt_from="the first half", judged_on="the second half", same=False,
        present="contiguous", options=(option("contiguous", 0, 1e-3, moves=0.0), *others),
        ageing=Ageing(256, "Over 3 windows of 256 tokens it keeps 80 %.",
                      {name: (1.3, 1.2, 1.4) for name in ("none", "stale", "fresh", "itself")}),
        frontier=((1.0, 3.1), (1.2, 2.6)), drift_steps=1000.0, notes=("times are of one layer",),
    )  # fmt: skip
    return dataclasses.replace(verdict, **changes)


BEST = option("eplb_global", 32, 0.939e-3)


def test_the_answer_is_one_sentence():
    verdict = made(option("greedy", 0, 0.998e-3), BEST)
    assert verdict.sentence() == (
        "eplb_global with 32 redundant slots, placed anew (blocking) every 200 steps or more: 6.1 % faster prefill "
        "(5.6 % to 6.6 %), for 10.21 GB of each GPU."
    )


def test_what_is_within_the_models_error_beats_nothing():
    verdict = made(option("greedy", 0, 0.998e-3))
    assert verdict.best is None
    assert verdict.sentence() == "Nothing beats contiguous by more than the model's error; greedy comes to 0.2 %."
    assert made(option("greedy", 0, 1.1e-3)).sentence() == "Nothing beats contiguous by more than the model's error."


def test_the_page_shows_every_placement_what_it_costs_and_the_charts():
    verdict = made(option("greedy", 0, 0.998e-3), BEST)
    page = Page(render_placement(verdict))
    words = page.words()
    assert verdict.sentence() in words and "within the model's error" in words
    for title in ("Layer time saved against contiguous", "How a placement ages", "Affinity: fewer nodes per token",
                  "less what moving to it costs"):  # fmt: skip
        assert title in words
    assert "Same tokens:" not in words and "times are of one layer" in words


def test_the_same_tokens_are_marked_on_the_first_screen():
    verdict = made(BEST, same=True)
    assert "Same tokens:" in Page(render_placement(verdict)).words()
    assert verdict.sentence().startswith("Learnt and judged on the same tokens, so at most: ")


def test_a_short_recording_and_one_node_have_no_such_charts():
    verdict = made(BEST, ageing=Ageing(0, "Too short to say: few."), frontier=())
    words = Page(render_placement(verdict)).words()
    assert "How a placement ages" not in words and "fewer nodes per token" not in words and "Too short to say" in words


def test_names_cannot_break_out_of_the_page():
    for name in HOSTILE:
        page = Page(render_placement(made(BEST, scenario=name, present=name, notes=(name,))))
        assert page.tags == Page(render_placement(made(BEST))).tags


def test_a_notebook_shows_the_verdict():
    verdict = made(option("greedy", 0, 0.998e-3), BEST)
    html = verdict._repr_html_()
    stands_alone(html)
    rows = rows_of(html)
    assert rows["eplb_global, 32 redundant"][0] == ("939 µs", "0.000939")
    assert rows["greedy"][3][0] == "within the model&#39;s error"


@pytest.mark.parametrize("redundant", [0, 32])
def test_memory_is_said_where_some_is_paid(redundant):
    sentence = made(option("eplb_global", redundant, 0.939e-3)).sentence()
    assert ("of each GPU" in sentence) == bool(redundant)
