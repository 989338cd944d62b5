"""``moesim validate --rows``: a user's measurements on the command line."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import moesim as moesim_fixture

# Fits and runs of many layers.
pytestmark = pytest.mark.jit

moesim = moesim_fixture
HEAD = "id,cluster,library,gpu,nic_GBps_per_gpu,nodes,ranks,tokens,dtype,op,quantity,value,transport\n"
ROW = "{name},ours,deepep-ll,H100,50,2,16,128,{dtype},{op},{quantity},{value},cx-ibgda\n"


def table(path: Path, dispatch: float, combine: float, quantity: str = "time_us") -> Path:
    lines = [
        ROW.format(name=op, dtype=dtype, op=op, quantity=quantity, value=value)
        for op, dtype, value in (("dispatch", "fp8", dispatch), ("combine", "bf16", combine))
    ]
    path.write_text(HEAD + "".join(lines))
    return path


@pytest.fixture
def as_expected(moesim, tmp_path) -> dict[str, float]:
    path = table(tmp_path / "any.csv", 100.0, 200.0)
    return {row["id"]: row["simulated"] for row in json.loads(moesim("validate", "--rows", path, "--json").out)}


def test_rows_as_json_hold_the_quantity_as_it_was_measured(moesim, tmp_path, as_expected):
    done = moesim("validate", "--rows", table(tmp_path / "mine.csv", 130.0, 190.0), "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert [list(row) for row in rows] == [["id", "cluster", "quantity", "measured", "simulated", "low", "high"]] * 2
    assert [(row["id"], row["cluster"], row["measured"]) for row in rows] == [
        ("dispatch", "ours", 130.0), ("combine", "ours", 190.0),
    ]  # fmt: skip
    assert all(row["low"] < row["simulated"] < row["high"] for row in rows)
    assert rows[0]["simulated"] == pytest.approx(as_expected["dispatch"])


def test_a_cluster_like_its_peers_is_said_to_be_one(moesim, tmp_path, as_expected):
    path = table(tmp_path / "mine.csv", as_expected["dispatch"], as_expected["combine"])
    done = moesim("validate", "--rows", path, "--fail-over", "5%")
    assert done.code == 0, done.err
    assert "as its peers" in done.out and "outside" not in done.out


def test_slow_nics_are_named_and_fail(moesim, tmp_path, as_expected):
    path = table(tmp_path / "mine.csv", 1.9 * as_expected["dispatch"], 2.0 * as_expected["combine"])
    done = moesim("validate", "--rows", path, "--fail-over", "30%")
    assert done.code == 4
    assert "outside" in done.out
    (line,) = [line for line in done.out.splitlines() if line.strip().startswith("NIC: ")]
    assert "expected" in line and "about half of its peers'" in line


def test_a_nic_test_alone_is_said(moesim, tmp_path):
    path = tmp_path / "link.csv"
    path.write_text(HEAD + "w,ours,perftest,H100,50,2,2,1048576,,rdma_write,link_GBps,48.7,\n")
    done = moesim("validate", "--rows", path)
    assert done.code == 0, done.err
    assert "the NIC alone reaches 48.7 GB/s" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--given", "gpu=h100"), "--given has no effect without --rows"),
        (("--fail-over", "5%"), "--fail-over has no effect without --rows"),
        (("--rows", "{mine}", "--given", "ranks"), "'ranks' is no fact"),
        (("--rows", "{mine}", "--given", "rank=8"), "ranks"),
        (("--rows", "{mine}", "--fail-over", "much"), "'much' is not a percentage"),
        (("--rows", "nowhere.csv"), "no such file"),
    ],
)
def test_mistakes_are_one_line(moesim, tmp_path, arguments, said):
    mine = table(tmp_path / "mine.csv", 100.0, 200.0)
    done = moesim("validate", *(str(argument).replace("{mine}", str(mine)) for argument in arguments))
    assert done.code == 2
    assert said in done.err and len(done.err.strip().splitlines()) == 1
    assert done.out == "" or "Traceback" not in done.out
