"""What a run says of a set over clusters: how far off it is on a cluster left out, over the run's own transport."""

import pytest

from moesim import load_scenario
from moesim.layer import build_parts
from moesim.measure.notes import _left_out
from moesim.traffic import error_left_out
from moesim.validate.clusters_left_out import expectations, read_left_out


def parts(topology, algorithm, transport="auto"):
    alltoall = f"alltoall={{algorithm: {algorithm}, transport: {transport}}}"
    return build_parts(load_scenario("quickstart", [f"cluster.topology={topology}", alltoall]))


def test_errors_by_transport_are_those_that_validate_prints():
    rows = read_left_out()
    cells = {one.what: one for one in expectations(rows)}
    named = 0
    for algorithm, transport in {(row.algorithm, row.transport) for row in rows}:
        of_cell, found = cells.get(f"{algorithm}, {transport}"), error_left_out(algorithm, transport)
        assert (of_cell is None) == (not found)
        if of_cell and found:
            named += 1
            wanted = {name: getattr(of_cell, name) for name in ("rows", "clusters", "median", "p90")}
            assert found == pytest.approx(wanted, rel=1e-12)
    assert named >= 8


@pytest.mark.parametrize(
    ("topology", "transport", "kind"),
    [
        ("h800-8x8-rail", "auto", "ibgda"),
        ("h800-8x8-rail", "efa-proxy", "efa-proxy"),
        ("hgx-h800", "efa-proxy", "nvlink"),  # nobody posts to a NIC on one node
    ],
)
def test_a_run_quotes_the_clusters_left_out_over_its_own_transport(topology, transport, kind):
    found = error_left_out("deepep-normal", kind)
    said = _left_out(parts(topology, "deepep-normal", transport))
    assert f"{100 * found['median']:.0f} % off in the median" in said
    assert f"{found['rows']} rows of {found['clusters']} clusters" in said


def test_where_no_cluster_shows_a_transport_the_run_says_what_it_pools():
    made = parts("h800-8x8-rail", "deepep-normal", "ibrc")
    if not error_left_out("deepep-normal", "ibrc"):
        rows = dict(made.constants["dispatch"].held_out)["rows"]
        assert f"{rows:.0f} rows over all transports, since no cluster shows deepep-normal over ibrc" in _left_out(made)
    else:
        assert "over ibrc" in _left_out(made)
