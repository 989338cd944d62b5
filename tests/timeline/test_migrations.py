"""Programs with moves of weights: where they stop the ranks, what goes on beside them, and who waits."""

import numpy as np
import pytest

from moesim.stages import BESIDE, MIGRATION
from moesim.timeline import LayerWork, MigrationTrace, moe_layers, run_layers, with_migrations
from moesim.traffic import weight_flows, weight_transfer
from tests.reference.small_rail import small_rail

LAYERS = moe_layers(3, permutes_first=True)


@pytest.fixture
def small_step():
    """Two ranks, one layer without any work, and an expert of 2 MB that travels from one to the other."""
    fabric, program = small_rail(1, 2), moe_layers(1, permutes_first=True)
    program = tuple(one._replace(after=()) for one in program if one.stage.kind == "kernel")
    seconds = {one.stage.name: np.zeros(2) for one in program}
    flows = weight_flows(fabric, [0], [1], 2_000_000, weight_transfer("async"))
    weights = {("weights", 0, 0): flows}
    program = with_migrations(program, (), (0,))
    return list(run_layers(fabric, program, lambda *_: LayerWork(seconds, {}), np.zeros(2), 1e9, weights=weights))


def names(program):
    return [operation.key for operation in program]


def of(program, key):
    return next(operation for operation in program if operation.key == key)


def test_blocking_moves_all_before_the_first_layer_one_after_another():
    program = with_migrations(LAYERS, (0, 2), (), first=True)
    assert names(program)[:3] == [("migration", 0, 0), ("migration", 2, 0), ("gate", 0, 0)]
    assert of(program, ("migration", 2, 0)).after == (("migration", 0, 0),)
    assert of(program, ("gate", 0, 0)).after == (("migration", 2, 0),)
    assert [one for one in program if one.stage is not MIGRATION][1:] == list(LAYERS[1:])


def test_layer_by_layer_each_move_lies_between_its_layer_and_the_one_before():
    program = with_migrations(LAYERS, (1,), ())
    last = ("unpermute", 0, 0)
    assert of(program, ("migration", 1, 0)).after == (last,)
    assert of(program, ("gate", 1, 0)).after == (("migration", 1, 0),)
    assert of(program, ("gate", 2, 0)) == of(LAYERS, ("gate", 2, 0))


def test_with_other_work_between_layers_the_stop_comes_before_it():
    program = with_migrations(moe_layers(2, True, other=True), (1,), ())
    assert of(program, ("other", 1, 0)).after == (("migration", 1, 0),)


def test_what_travels_beside_waits_for_nothing_and_nothing_for_it():
    program = with_migrations(LAYERS, (), (2, 0))
    assert program[: len(LAYERS)] == LAYERS
    assert [one.layer for one in program[len(LAYERS) :]] == [2, 0]
    assert all(one.stage is BESIDE and one.after == () for one in program[len(LAYERS) :])


def test_weights_for_the_very_tokens_leave_after_the_router_and_the_experts_wait_for_them():
    program = with_migrations(LAYERS, (), (1,), awaited=True)
    assert of(program, ("weights", 1, 0)).after == (("gate", 1, 0),)
    assert ("weights", 1, 0) in of(program, ("experts", 1, 0)).after
    assert of(program, ("experts", 0, 0)) == of(LAYERS, ("experts", 0, 0))


def test_a_step_with_weights_beside_gives_their_trace_and_the_layers(small_step):
    moved = [trace for trace in small_step if isinstance(trace, MigrationTrace)]
    (one,) = moved
    assert one.beside and one.layer == 0 and one.phase.flows.size.sum() == 2e6
    assert np.isfinite(one.phase.leave_s).all()
