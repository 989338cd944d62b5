"""A set as a file: what is spelt is read again, number by number."""

from dataclasses import replace

import pytest

from moesim.traffic import Step, Uncertain
from moesim.traffic.constant_sets import find_set, read_set
from moesim.validate.set_file import rounded, spell_set


def over_clusters():
    """DeepEP's set as if it were fitted over two clusters, with a step to a GPU and to a transport."""
    gpus = {"h800": Step(1.27345678, 0.2876543, 3), "b200": Step(0.5, 0.35, 1)}
    uncertain = (
        Uncertain(
            (("dispatch", "nvlink_rate"), ("combine", "nvlink_rate")), "nvlink", 0.0412345678, gpus, {}, ("gpu",)
        ),
        Uncertain(
            (("across", "dispatch", "setup_inter_node_s"),), "setup", 0.31, {}, {"efa-proxy": Step(2.5, 0.7, 2)},
            ("gpu", "transport"),
        ),
        Uncertain((("across", "combine", "node_copy_sm_s"),), "work", 0.3, {}, {}),
    )  # fmt: skip
    return rounded(
        replace(
            find_set("deepep-normal", "h100", "deepep-normal-h100").with_ports(450e9, 33.3333333e9),
            name="mine", transport="ibrc", clusters={"azure-h100": 6, 'one "odd": name': 4}, uncertain=uncertain,
            row_spread=0.0512345, widen=1.2, source='a "quoted" source',
        )
    )  # fmt: skip


def same(one, other):
    """Equal but for the last bits that a unit's factor costs."""
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-12)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def test_a_set_over_clusters_reads_back_as_it_was_written(tmp_path):
    found = over_clusters()
    path = tmp_path / "mine.yaml"
    path.write_text(spell_set(found))
    again = read_set(path)
    for name in ("phases", "across"):
        assert all(same(getattr(found, name)[phase], getattr(again, name)[phase]) for phase in ("dispatch", "combine"))
    assert same(found.nic_peak, again.nic_peak)
    rest = {"phases": {}, "across": {}, "nic_peak": 0.0}
    assert replace(found, **rest) == replace(again, **rest)


def test_an_axis_without_steps_is_still_one_that_a_constant_answers_to(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(spell_set(over_clusters()))
    setup = read_set(path).uncertain[1]
    assert (setup.answers, dict(setup.gpu)) == (("gpu", "transport"), {})
    assert setup.transport == {"efa-proxy": Step(2.5, 0.7, 2)}
