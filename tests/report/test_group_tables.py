"""What a page says of several expert-parallel groups."""

from dataclasses import replace

import pytest

import moesim
from moesim.report import render_run
from moesim.report.group_tables import facts_of, group_rows, group_sentences, placements, shared_links
from tests.run.small import SMALL


@pytest.fixture(scope="module")
def striped():
    blocks = {
        "cluster": {"topology": "h100-8x2-leaf-spine-8to1"},
        "alltoall": {"algorithm": "deepep-low-latency"},
        "parallel": {"ep": 8, "dp": 16, "group_placement": "striped"},
    }
    return moesim.simulate(moesim.load_scenario({**SMALL, **blocks}))


def told(result, **facts):
    """The sentences where the result's facts, or numbers of its summary, are others."""
    numbers = {key: facts.pop(key) for key in list(facts) if key in result.summary}
    explanation = result.explanation | {"groups": {**result.explanation["groups"], **facts}}
    return group_sentences(replace(result, summary=result.summary | numbers, explanation=explanation))


def placed(name, mean_s):
    busiest = {"shared_links": 0, "busiest_shared": None, "busiest_shared_s": 0.0}
    return {"placement": name, "layer_time_mean_s": mean_s, "layer_time_max_s": mean_s, **busiest}


def test_the_first_sentence_is_what_contention_costs_and_names_its_link(striped):
    numbers = {"contention_cost": 1.25, "group_layer_time_mean_s": 2e-3, "alone_layer_time_mean_s": 1.6e-3}
    first = told(striped, contended_link="leaf0->spine1", **numbers)[0]
    assert first == (
        "Contention costs 25 %: a layer takes 2 ms among 2 groups, 1.6 ms alone. The shared link that held the groups "
        "longest is leaf0->spine1."
    )
    assert told(striped, links=[], **numbers)[0] == "The 2 groups share no link: each takes 2 ms, as it would alone."
    assert "cost each other nothing" in told(striped, contention_cost=1.0)[0]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([placed("packed", 1e-3), placed("random", 3e-3)], "Placed packed they would take 50 % less: 1 ms a layer."),
        (
            [placed("packed", 2e-3), placed("random", 3e-3)],
            "No other placement by name is faster; random takes 50 % more: 3 ms a layer.",
        ),
        ([placed("packed", 2e-3)], "Every other placement of the groups takes the same."),
        ([{"placement": "rails", "not": "does not fit"}], "No other placement of the groups fits this cluster."),
    ],
)
def test_the_last_sentence_is_what_another_placement_gives(striped, others, said):
    assert told(striped, placements=[placed("striped", 2e-3), *others])[-1] == said


def test_the_tables_have_a_row_per_group_link_and_placement(striped):
    facts = facts_of(striped)
    assert [row[1] for row in group_rows(striped).rows] == ["n0, n2, n4, n6", "n1, n3, n5, n7"]
    assert [row[2] for row in shared_links(facts).rows] == ["0, 1"] * len(facts["links"])
    assert [row[0] for row in placements(facts).rows] == ["striped (this run)", "packed", "rails", "random"]


def test_a_page_has_the_section_only_where_there_are_groups(striped):
    page = render_run(striped)
    assert 'id="groups"' in page and group_sentences(striped)[0] in page.replace("&gt;", ">")
    explanation = {name: value for name, value in striped.explanation.items() if name != "groups"}
    assert 'id="groups"' not in render_run(replace(striped, explanation=explanation))
