"""Files as their tools write them, each with what it must give; the shared ones where they are there."""

import json
from pathlib import Path

import pytest

from moesim.errors import InputError
from moesim.topology_files import Answers, facts_of, import_topology, parse_pcie, topology_yaml
from moesim.units import parse_bandwidth, parse_duration

SHARED = Path(__file__).parents[3] / "shared" / "reference" / "topo"
EXPECTED = sorted(SHARED.glob("*.expected.json")) if SHARED.is_dir() else []


def answers_of(given):
    rates = {key: parse_pcie(given[key]) for key in ("nic", "pcie") if key in given}
    names = tuple(given["nic_map"].split(",")) if "nic_map" in given else ()
    numbers = {key: given[key] for key in ("nvlink_domain", "gpus_per_node") if key in given}
    return Answers(gpu=given.get("gpu", ""), nic_map=names, **rates, **numbers)


def same(expected, got):
    """Equal, numbers and quantities to 0.1 %; what has more keys than expected is equal."""
    if isinstance(expected, dict):
        return isinstance(got, dict) and all(key in got and same(value, got[key]) for key, value in expected.items())
    if isinstance(expected, list):
        if not isinstance(got, list) or len(got) != len(expected):
            return False
        ends = [
            [(one.get("source"), one.get("target")) for one in links if isinstance(one, dict)]
            for links in (expected, got)
        ]
        if ends[0] and None not in ends[0][0]:  # links, in whatever order
            by_ends = dict(zip(ends[1], got, strict=True))
            return all(same(link, by_ends.get(pair)) for pair, link in zip(ends[0], expected, strict=True))
        return all(map(same, expected, got))
    if isinstance(expected, str) and isinstance(got, str) and expected != got:
        for parse in (parse_bandwidth, parse_duration):
            try:
                return parse(got) == pytest.approx(parse(expected), rel=1e-3)
            except InputError:
                continue
    if isinstance(expected, float):
        return got == pytest.approx(expected, rel=1e-3)
    return expected == got


@pytest.mark.skipif(not EXPECTED, reason="the shared fixtures are not here")
@pytest.mark.parametrize("path", EXPECTED, ids=lambda path: path.name.removesuffix(".expected.json"))
def test_a_file_gives_what_it_must(path, tmp_path):
    expected = json.loads(path.read_text())
    name = path.name.removesuffix(".expected.json")
    source = next(each for each in SHARED.glob(f"{name}.*") if each.suffix != ".json")
    given = expected.pop("given", {})
    if expected["format"] == "ibnetdiscover":
        given["gpu"] = expected["moesim"]["gpu"]  # it is in no such file, nor among the answers there
    imported = import_topology([source], answers_of(given))
    got = facts_of(imported)
    expected.pop("moesim_note", None)  # words of our own
    if "moesim_after_answers" in expected:
        expected["moesim"] = expected.pop("moesim_after_answers")
    unequal = {key: (value, got.get(key)) for key, value in expected.items() if not same(value, got.get(key))}
    assert not unequal
    if imported.spec is not None:
        assert "kind: " in topology_yaml(imported, str(tmp_path / "t.yaml"))
