"""Which GPUs make up each expert-parallel group: placements by name, and files with their mistakes."""

import numpy as np
import pytest

from moesim.cluster import group_fabrics, load_topology, places_of_group
from moesim.errors import InputError

CLUSTER = load_topology("h100-8x4-leaf-spine-2to1")


def nodes(placement, n_groups=2, ep=16, seed=0):
    views = group_fabrics(CLUSTER, placement, n_groups, ep, seed)
    assert len(np.unique(np.concatenate([view.cluster_rank for view in views]))) == n_groups * ep
    return [places_of_group(CLUSTER, view) for view in views]


def test_packed_groups_take_one_node_after_the_other():
    assert nodes("packed") == ["n0 to n3", "n4 to n7"]


def test_striped_groups_are_dealt_nodes_in_turn():
    assert nodes("striped") == ["n0, n2, n4, n6", "n1, n3, n5, n7"]
    assert nodes("striped", 4, 2) == ["gpu0, gpu1 of n0", "gpu2, gpu3 of n0", "gpu0, gpu1 of n1", "gpu2, gpu3 of n1"]


def test_on_rails_every_group_has_its_share_of_every_node():
    assert nodes("rails") == ["gpu0, gpu1 of n0 to n7", "gpu2, gpu3 of n0 to n7"]


def test_random_groups_have_whole_nodes_of_the_whole_cluster_and_follow_the_seed():
    drawn = [nodes("random", 2, 8, seed) for seed in range(4)]
    assert drawn[0] == nodes("random", 2, 8, 0) and len({tuple(one) for one in drawn}) > 1
    assert any("n6" in place or "n7" in place for one in drawn for place in one)
    assert not any("gpu" in place for one in drawn for place in one)


def test_a_view_has_the_routes_of_its_ranks_in_the_whole_cluster():
    _, second = group_fabrics(CLUSTER, "rails", 2, 16)
    ptr, links = second.routes([0, 0], [1, 15])
    assert np.array_equal(links[: ptr[1]], CLUSTER.routes([2], [3])[1])
    assert np.array_equal(links[ptr[1] :], CLUSTER.routes([2], [31])[1])
    assert second.rank_names[15] == "n7.gpu3" and second.n_nodes == 8 and second.ranks_per_node == 2
    assert second.some_ranks(np.array([14, 15])).in_cluster(np.array([1]))[0] == 31


@pytest.mark.parametrize(
    ("placement", "n_groups", "ep", "said"),
    [
        ("packed", 3, 16, "3 groups of 16 GPUs do not fit h100-8x4-leaf-spine-2to1, which has 32"),
        ("packed", 2, 6, "group 1 has other numbers of GPUs on its nodes"),
        ("rails", 3, 4, "3 groups of 4 GPUs cannot share the 4 GPUs of every node evenly"),
    ],
)
def test_what_does_not_fit_is_refused(placement, n_groups, ep, said):
    with pytest.raises(InputError, match=said):
        group_fabrics(CLUSTER, placement, n_groups, ep)


def test_a_file_gives_a_line_of_nodes_and_gpus_for_each_group(tmp_path):
    file = tmp_path / "groups.txt"
    file.write_text("# two nodes a group\nn0, n7\n\nn3 n4.gpu0 n4.gpu1 n4.gpu2 n4.gpu3  # the second\n")
    assert nodes(str(file), 2, 8) == ["n0, n7", "n3, n4"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("n0 n1\nn1 n2\n", 2, "n1.gpu0 is in group 0 already"),
        ("n0 n1\nn2\n", 2, "group 1 has 4 GPUs"),
        ("n0 n9\n", 1, "no place 'n9'"),
        ("n0 leaf1\n", 1, "no GPU at 'leaf1'"),
        ("n0 n1\n", None, "1 groups, and dp x tp / ep = 2"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_line(tmp_path, text, line, said):
    file = tmp_path / "groups.txt"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        group_fabrics(CLUSTER, str(file), 2, 8)
    assert said in str(error.value) and error.value.where == (f"{file}:{line}" if line else str(file))
