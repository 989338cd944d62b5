"""Placement maps written for engines and read back."""

import json

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.placement import Placement, contiguous, eplb, read_map, write_map

RNG = np.random.default_rng(0)


def placed(layers=3, slots=12, experts=8, ranks=4):
    load = RNG.random((layers, experts))
    return eplb(load, n_slots=slots, n_ranks=ranks, n_nodes=2, n_groups=1)


@pytest.mark.parametrize("form", ["sglang", "tensorrt-llm", "json"])
def test_a_map_reads_back_as_it_was_written(tmp_path, form):
    p = placed()
    write_map(tmp_path / "map", p, form=form, layers=(3, 4, 7))
    again = read_map(tmp_path / "map", n_ranks=4)
    for row, layer in enumerate((3, 4, 7)):
        assert np.array_equal(again.for_layer(layer).slot_expert, p.slot_expert[row])
    assert np.array_equal(again.slot_rank, p.slot_rank) and again.n_ranks == 4
    write_map(tmp_path / "again", again, form=form)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "map").read_bytes()


def test_sglang_gets_one_key_and_every_layer_of_the_model(tmp_path):
    p = placed()
    write_map(tmp_path / "m.json", p, form="sglang", layers=(1, 2, 4), model_layers=6)
    data = json.loads((tmp_path / "m.json").read_text())
    assert list(data) == ["physical_to_logical_map"] and len(data["physical_to_logical_map"]) == 6
    identity = [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    assert [data["physical_to_logical_map"][layer] for layer in (0, 3, 5)] == [identity] * 3
    assert data["physical_to_logical_map"][4] == p.slot_expert[2].tolist()


def test_tensorrt_llm_gets_its_three_keys_as_flow_lists(tmp_path):
    p = placed()
    write_map(tmp_path / "m.yaml", p, form="tensorrt-llm", layers=(3, 4, 5))
    mark, *lines = (tmp_path / "m.yaml").read_text().splitlines()
    assert mark.startswith("# moesim, placement in tensorrt-llm, ")
    assert lines[0] == "num_slots: 12" and lines[1] == "initial_global_assignments:"
    assert lines[2] == f"  3: {p.slot_expert[0].tolist()}" and lines[5] == "layer_updates_per_iter: 0"


def test_only_our_own_form_holds_ranks_of_unequal_size(tmp_path):
    p = contiguous(10, 4)
    with pytest.raises(InputError, match="10 slots on 4 ranks, not the same number on each"):
        write_map(tmp_path / "m", p, form="sglang", layers=(0,))
    assert not (tmp_path / "m").exists()
    write_map(tmp_path / "m", p, layers=(0, 1))
    assert np.array_equal(read_map(tmp_path / "m").slot_rank, p.slot_rank)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"physical_to_logical_map": [[0, 1, 2]]}', "3 slots do not spread evenly over 2 ranks"),
        ('{"physical_to_logical_map": [[0, 1], [0]]}', "rows of different length"),
        ('{"physical_to_logical_map": [[0, 0, 2, 2]]}', "expert 1 has no slot"),
        ('{"physical_to_logical_map": [[0, -1]]}', "holds -1; numbers start at 0"),
        ('{"physical_to_logical_map": [[0.5, 1]]}', "whole numbers"),
        ('{"physical_to_logical_map": 5}', "has shape"),
        ('{"logical_count": [[1, 2]]}', "counts of experts, from which the engine places"),
        ('{"expert_map": [[1, 2]]}', "no placement: it holds expert_map"),
        ('{"physical_to_logical_map": [[0, 1]', "map:1:36: not valid JSON"),
        ("num_slots: 3\ninitial_global_assignments: {0: [0, 1]}\n", "num_slots is 3, the layers have 2"),
        ("num_slots: 2\ninitial_global_assignments: {a: [0, 1]}\n", "is no block of layers"),
        ("- 1\n", "a block of keys is needed"),
        ('{"schema_version": 9, "slot_expert": [[0, 1]]}', "schema version 9"),
    ],
)
def test_what_is_no_map_is_refused_in_one_line(tmp_path, text, says):
    (tmp_path / "map").write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_map(tmp_path / "map", n_ranks=2)
    assert "\n" not in str(caught.value)


def test_a_layer_without_a_row_is_refused():
    p = Placement(np.array([[0, 1], [1, 0]]), np.array([0, 1]), 2, (3, 5))
    assert p.for_layer(5).slot_expert.tolist() == [1, 0]
    with pytest.raises(InputError, match="no layer 4; it has 3 to 5"):
        p.for_layer(4)


def test_idle_ranks_and_replicas_side_by_side_are_said():
    assert contiguous(4, 4).oddities() == ()
    assert "2 of 6 ranks hold no expert" in contiguous(4, 6).oddities()[0]
    assert (
        "1 experts have replicas side by side"
        in Placement(np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1])).oddities()[0]
    )
