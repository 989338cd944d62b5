"""``explain``: every number of the summary taken apart in words."""

import re
from dataclasses import replace

import pytest

from moesim.errors import InputError
from moesim.results.definitions import COMPONENTS, SUMMARY
from moesim.results.explain import explain_lines
from moesim.traffic.constant_sets import find_set
from tests.run.small import run

SITUATIONS = {
    "small": (),
    "direct on two nodes": (
        "cluster.topology=h800-8x8-rail",
        "parallel.ep=16",
        "alltoall.algorithm=nccl-direct",
        "workload.tokens_per_rank=8",
    ),
    "one rank": ("parallel.ep=1", "routing.groups=1", "routing.top_groups=1"),
}


@pytest.mark.parametrize("overrides", SITUATIONS.values(), ids=SITUATIONS.keys())
@pytest.mark.parametrize("key", SUMMARY)
def test_every_number_is_explained_with_its_definition_and_what_it_is_made_of(key, overrides):
    lines = list(explain_lines(run(*overrides), key))
    assert lines[0].startswith(f"{key} = ") and lines[1].strip() == SUMMARY[key].text
    assert len(lines) >= 3
    assert not re.search(r"\b(nan|inf|None)\b", "\n".join(lines))


def test_a_time_of_the_all_to_all_names_bytes_rates_setup_and_source():
    text = "\n".join(explain_lines(run("alltoall.calibration=deepep-normal-h800"), "dispatch_time_s"))
    # 1024 channels in FP8 with scales, index and weight of 4 experts, in blocks of 16
    assert "1104 B per copy on the wire" in text and "1056 B as the library" in text
    assert re.search(r"layout +50 us", text) and re.search(r"notify +32 us", text)
    assert re.search(r"CPU synchronisation +100 us", text)
    assert "24 of 132 SMs" in text and "from DeepEP README" in text
    # which set, on how many published figures, how well
    assert "set deepep-normal-h800, fitted on 3 published figures; error left: median" in text
    assert re.search(r"held by NVLink.*\n +.*rank .*n0.*GB/s", text)


def test_a_time_by_the_default_set_names_how_many_clusters_it_was_fitted_on_and_what_it_adds():
    text = "\n".join(explain_lines(run(), "dispatch_time_s"))
    found = find_set("deepep-normal", "h800")
    terms, clusters = found.phases["dispatch"], len(found.clusters)
    assert clusters > 1 and f"from {clusters} published clusters" in text
    assert f"{terms['sms']} of 132 SMs" in text
    set_up_us = 1e6 * terms["setup_intra_node_s"] - 3.33  # of which NVLink's latency on hgx-h800
    assert re.search(rf"set-up +{set_up_us:.4g} us", text)
    assert f"NVLink: {terms['nvlink_rate'] / 1e9:.1f} GB/s" in text
    # What no cluster's rows time is told apart from the kernel's own set-up.
    moves = next(line for line in text.splitlines() if "one standard deviation" in line)
    assert "set-up times" in moves and "times before the kernel" in moves


def test_the_layer_time_is_taken_apart_into_its_components():
    text = "\n".join(explain_lines(run(), "layer_time_s"))
    assert all(name in text for name in COMPONENTS) and "critical rank of each layer" in text


def test_every_knob_of_the_router_is_told():
    text = "\n".join(explain_lines(run("routing.scale=2.5", "routing.normalize=false"), "gate_mass_lost"))
    assert "router v3: sigmoid, top-4" in text and "groups ranked by top2" in text
    assert "normalize false, scale 2.5" in text


def test_the_peak_of_the_link_that_held_longest_is_told_where_it_is_slower_than_its_peers():
    rail = ("cluster.topology=h800-8x8-rail", "parallel.ep=16")
    slow = run(*rail, "cluster.overrides=[{where: n1.gpu2.nic, bandwidth: 5GB/s}]")
    lines = list(explain_lines(slow, "layer_time_s"))
    at = next(i for i, line in enumerate(lines) if "held it longest: " in line)
    assert "n1.gpu2" in lines[at] and lines[at + 1] == "  its peak is 5 GB/s, that of most links of its class 50 GB/s"
    even = "\n".join(explain_lines(run(*rail), "layer_time_s"))
    assert "held it longest: " in even and "its peak is" not in even


@pytest.mark.parametrize(("of_rank_5", "listed"), [(1e-6, False), (2e-6, True)])
def test_ranks_are_listed_where_they_contribute_other_amounts_per_layer(of_rank_5, listed):
    # Rank 3 is critical in two of three layers, rank 5 in one: as much per layer is the same for both.
    shares = [{"layers": [0, 2], "value": 2e-6, "rank": 3}, {"layers": [1], "value": of_rank_5, "rank": 5}]
    term = {"name": "router", "value": 2e-6 + of_rank_5, "unit": "s", "formula": "", "source": "measured", "of": shares}
    explanation = run().explanation | {"terms": {"gate_time_s": [term]}}
    text = "\n".join(explain_lines(replace(run(), explanation=explanation), "gate_time_s"))
    assert ("2 us: rank 3 (layers 0, 2)" in text) == listed == ("rank 5 (layer 1)" in text)


def test_a_set_over_clusters_says_how_far_it_is_off_on_clusters_that_it_did_not_see():
    text = "\n".join(explain_lines(run(), "dispatch_time_s"))
    found = find_set("deepep-normal", "h800")
    off = f"median {found.held_out['median']:.1%}, p90 {found.held_out['p90']:.1%}"
    rows, clusters = found.held_out["rows"], len(found.clusters)
    assert (
        f"set {found.name}, off on {rows:.0f} rows of {clusters} clusters, each predicted by the others: {off}" in text
    )
    assert "held out" not in text


def test_what_widens_an_interval_is_named_in_words():
    result = run()
    lines = list(explain_lines(result, "dispatch_time_s"))
    widens = next(line for line in lines if "one standard deviation" in line)
    (fast, slow) = result.explanation["band"]["moves"]["dispatch_time_s"]["host"]
    assert f"times before the kernel {100 * fast:+.1f} / {100 * slow:+.1f} %" in widens


def test_a_misspelt_number_is_refused_with_the_closest():
    with pytest.raises(InputError, match="did you mean dispatch_time_s"):
        list(explain_lines(run(), "dispatch_tim_s"))
    with pytest.raises(InputError, match="choose among"):
        list(explain_lines(run(), "zzz"))
