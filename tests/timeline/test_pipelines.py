"""Pipelines against their closed forms, in rational arithmetic; and against the dependencies, by brute force."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from random import Random
from time import process_time

import pytest

from moesim.errors import InvariantError
from moesim.timeline.pipeline import Ran, run_pipeline
from moesim.timeline.pipelines import PIPELINES
from moesim.timeline.pipelines.passes import Pass, Task

DRAWS = pytest.mark.parametrize("draws", [200, pytest.param(2000, marks=pytest.mark.slow)])


def part(draw: Random) -> Fraction:
    return Fraction(draw.randint(1, 60), draw.randint(1, 12))


def costs(forward: Fraction, back: Fraction, weights: Fraction, pair: Fraction) -> Callable[[Task], Fraction]:
    of = {"forward": forward, "input": back, "weights": weights, "backward": back + weights}
    return lambda task: pair if len(task) == 2 else of[task[0].kind]


def idle(ran: list[Ran], rank: int, whole: bool = True) -> Fraction:
    """What a rank stands still until the pipeline's end, or until its own."""
    own = [one for one in ran if one.rank == rank]
    end = max(one.end_s for one in (ran if whole else own))
    return end - sum(one.end_s - one.start_s for one in own)


@pytest.mark.parametrize("name", ["1f1b", "zb1p", "dualpipe", "dualpipev"])
@pytest.mark.parametrize(("ranks", "more"), [(2, 0), (4, 1), (6, 0), (8, 4), (16, 5)])
def test_every_micro_batch_passes_every_stage_once_each_way(name, ranks, more):
    count = 2 * ranks + 2 * more
    done = [one for tasks in PIPELINES[name](ranks, count) for task in tasks for one in task]
    stages = 2 * ranks if name == "dualpipev" else ranks
    ways = [("forward", ("forward",)), ("back", ("backward", "input")), ("weights", ("backward", "weights"))]
    for _, kinds in ways:
        seen = sorted((one.stage, one.micro_batch) for one in done if one.kind in kinds)
        assert seen == [(stage, i) for stage in range(stages) for i in range(count)]


def test_one_rank_takes_forward_and_backward_in_turn():
    order = PIPELINES["none"](1, 2)
    assert order == (tuple((Pass(kind, 0, i),) for i in (0, 1) for kind in ("forward", "backward")),)


@DRAWS
def test_1f1b_ends_after_m_plus_p_minus_1_times_forward_and_backward(draws):
    draw = Random(1)
    for _ in range(draws):
        ranks, count, f, b = draw.randint(1, 6), draw.randint(1, 8), part(draw), part(draw)
        ran = run_pipeline(PIPELINES["1f1b"](ranks, count), costs(f, b, Fraction(0), Fraction(0)))
        assert max(one.end_s for one in ran) == (count + ranks - 1) * (f + b)


@DRAWS
def test_zb1p_stands_still_for_p_minus_1_times_what_weights_do_not_fill(draws):
    draw = Random(2)
    for _ in range(draws):
        ranks, f, b = draw.randint(2, 6), part(draw), part(draw)
        w = min(f, b) * Fraction(draw.randint(1, 12), 12)
        order = PIPELINES["zb1p"](ranks, draw.randint(2 * ranks, 2 * ranks + 4))
        ran = run_pipeline(order, costs(f, b, w, Fraction(0)))
        assert max(idle(ran, rank, whole=False) for rank in range(ranks)) == (ranks - 1) * (f + b + w - 2 * w)


def test_zb1p_keeps_as_many_weight_passes_in_hand_as_the_number_of_the_stage():
    for stage, tasks in enumerate(PIPELINES["zb1p"](4, 12)):
        in_hand, most = 0, 0
        for (one,) in tasks:
            in_hand += {"input": 1, "weights": -1}.get(one.kind, 0)
            most = max(most, in_hand)
        assert (in_hand, most) == (0, stage + 1)


def bubble(half: int, f: Fraction, w: Fraction, pair: Fraction) -> Fraction:
    return (half - 1) * (pair + f - 2 * w)


@DRAWS
@pytest.mark.parametrize(("name", "share"), [("dualpipe", 2), ("dualpipev", 1)])
def test_dualpipe_stands_still_in_the_middle_for_its_closed_form(name, share, draws):
    draw = Random(3)
    for _ in range(draws):
        half = draw.randint(1, 4)
        ranks, count = share * half, 2 * share * half + share * draw.randint(0, 3)
        b = part(draw)
        f = b + draw.choice((Fraction(0), part(draw)))
        w = b * Fraction(draw.randint(1, 12), 12)
        pair = max(f, b + w) + (f + b + w - max(f, b + w)) * Fraction(draw.randint(0, 12), 12)
        ran = run_pipeline(PIPELINES[name](ranks, count), costs(f, b, w, pair))
        for middle in (half - 1, half)[:share]:
            assert idle(ran, middle) == bubble(half, f, w, pair)
            if f == b:
                assert idle(ran, middle) == (half - 1) * (pair + (b + w) - 3 * w)


def test_dualpipe_with_longer_input_gradients_stands_still_between_the_two_forms():
    draw = Random(4)
    for _ in range(200):
        half, f = draw.randint(2, 4), part(draw)
        b, w = f + part(draw), f * Fraction(draw.randint(1, 12), 12)
        pair = f + b + w
        ran = run_pipeline(PIPELINES["dualpipe"](2 * half, 4 * half), costs(f, b, w, pair))
        ends = sorted((bubble(half, f, w, pair), (half - 1) * (pair + b - 2 * w)))
        assert ends[0] <= idle(ran, half) <= ends[1]


@pytest.mark.parametrize("name", ["1f1b", "zb1p", "dualpipe", "dualpipev"])
def test_no_pass_begins_before_what_it_needs_has_come(name):
    draw, send = Random(5), Fraction(1, 7)
    taken = {}

    def seconds(task: Task) -> Fraction:
        return taken.setdefault(task, part(draw))

    ran = run_pipeline(PIPELINES[name](4, 10), seconds, send)
    last = 7 if name == "dualpipev" else 3
    ends = {(one.kind, one.stage, one.micro_batch): (at.rank, at.end_s) for at in ran for one in at.task}
    for at in ran:
        assert at.end_s - at.start_s == seconds(at.task)
        for one in at.task:
            if one.kind == "forward":
                needs = [("forward", one.stage - 1)] if one.stage else []
            elif one.kind == "weights":
                needs = [("input", one.stage)]
            else:
                needs = [("backward", one.stage + 1), ("input", one.stage + 1)] if one.stage < last else []
                needs += [("forward", one.stage)]
            for kind, stage in needs:
                rank, end = ends.get((kind, stage, one.micro_batch), (at.rank, Fraction(0)))
                assert at.start_s >= end + (send if rank != at.rank else 0)
    for rank in range(4):
        own = [one for one in ran if one.rank == rank]
        assert all(a.end_s <= b.start_s for a, b in pairwise(own))


def test_an_order_that_waits_for_itself_is_refused():
    order = (((Pass("backward", 0, 0),), (Pass("forward", 0, 0),)),)
    with pytest.raises(InvariantError, match="nobody ever does"):
        run_pipeline(order, lambda _: 1.0)


def test_a_dualpipe_of_sixteen_stages_and_120_micro_batches_takes_no_ten_seconds():
    began = process_time()
    ran = run_pipeline(PIPELINES["dualpipe"](16, 120), costs(8.6, 15.45, 8.2, 32.25), 0.5)
    assert process_time() - began < 10
    assert len({(one.rank, one.task) for one in ran}) == len(ran)
