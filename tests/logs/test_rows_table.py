"""Tables of rows: what is read, what may be missing, and how a mistake is named."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.logs import COLUMNS, read_log

NODES = {"gpu": "h100", "gpus_per_node": 8}


def table(tmp_path, text):
    path = tmp_path / "mine.csv"
    path.write_bytes(text.encode())
    return path


def test_a_table_of_measured_clusters_is_read_whole(tmp_path):
    text = (
        "id,cluster,source_id,library,version,gpu,gpu_moesim,nic,nics_per_node,nic_GBps_per_gpu,nic_assumed,nodes,ranks,"
        "tokens,hidden,top_k,experts,top_nodes,dtype,sms,op,quantity,value,definition,transport,health,source,date,note\n"
        'b-01,b,b,deepep-v1,,B300,b200,"CX8, two ports",8,100,0,2,16,4096,7168,8,256,2,fp8,24,dispatch,rdma_GBps,80.5,'
        '"best, logical",cx-ibgda,poor,somebody,2026-01-02,\n'
        "b-02,b,b,nccl,,B300,b200,,8,100,0,1,8,1048576,,,,,,,alltoall,time_us,50,,nvlink,ok,somebody,,\n"
        "b-03,b,b,perftest,,,,mlx5_0,1,,,2,2,65536,,,,,,,rdma_write,link_GBps,48,,,,somebody,,\n"
    )
    log = read_log(table(tmp_path, text))
    first, second, link = log.rows
    assert (link.op, link.value, link.gpu) == ("rdma_write", 48, None)
    assert log.form == "table of rows"
    assert (first.id, first.gpu, first.gpu_moesim, first.nic, first.value) == (
        "b-01",
        "B300",
        "b200",
        "CX8, two ports",
        80.5,
    )
    assert (first.nic_GBps_per_gpu, first.nodes, first.definition, first.note) == (100.0, 2, "best, logical", None)
    assert (second.tokens, second.hidden, second.quantity, second.version) == (1048576, None, "time_us", None)


def test_what_the_table_lacks_is_taken_from_what_was_given_row_by_row(tmp_path):
    text = "op,ranks,tokens,time_us,nic\nalltoall,8,1024,9,\nalltoall,32,1024,90,own\n"
    rows = read_log(table(tmp_path, text), NODES | {"nic": "CX7", "cluster": "c"}).rows
    assert [(row.gpu_moesim, row.nodes, row.nic, row.cluster) for row in rows] == [
        ("h100", 1, "CX7", "c"), ("h100", 4, "own", "c"),
    ]  # fmt: skip
    assert [row.id for row in rows] == ["mine-01", "mine-02"]


def test_a_usual_node_is_assumed_only_where_that_is_said(tmp_path):
    path = table(tmp_path, "op,ranks,tokens,time_us\nalltoall,16,1024,9\n")
    with pytest.raises(InputError, match="--gpus-per-node"):
        read_log(path, {"gpu": "h100"})
    log = read_log(path, {"gpu": "h100"}, per_node=8)
    assert log.rows[0].nodes == 2
    assert log.notes == ("how many GPUs a node has is not said: 8, as is usual",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("op,ranks,tokns,time_us\nalltoall,8,1,3\n", "mine.csv:1:10: unknown column 'tokns'; did you mean 'tokens'?"),
        ("op,ranks,tokens,ranks,time_us\n", "mine.csv:1:17: column 'ranks' stands twice"),
        ("ranks,tokens,time_us\n8,128,3\n", "mine.csv:1:1: no column op"),
        ("op,ranks,tokens,value\nalltoall,8,128,3\n", "mine.csv:1:1: no column quantity"),
        ("op,ranks,tokens,time_us\n\nsideways,8,128,3\n", "mine.csv:3:1: op is 'sideways'"),
        ("op,ranks,tokens,time_us\r\nalltoall,8,8,8\r\ndispatch,8,,3\r\n", "mine.csv:3:12: no tokens"),
        ("op,ranks,tokens,time_us\ndispatch,8,128,nan\n", "mine.csv:2:16: time_us is 'nan'; a finite number is needed"),
        ("op,ranks,tokens,time_us\ndispatch,8,128,-3\n", "mine.csv:2:16: time_us is '-3'; a number from 0.001"),
        ("op,ranks,tokens,time_us\ndispatch,8,128,\n", "mine.csv:2:16: no value"),
        ("op,ranks,tokens,time_us\ndispatch,8.5,128,3\n", "mine.csv:2:10: ranks is '8.5'; a whole number"),
        ('op,note,ranks,tokens,time_us\ndispatch,"a, b",0,128,3\n', "mine.csv:2:17: ranks is '0'"),
        ("op,ranks,tokens,time_us\ndispatch,,128,3\n", "mine.csv:2:10: no ranks"),
        ("op,ranks,tokens,time_us\ndispatch,8,,3\n", "mine.csv:2:12: no tokens"),
        ("op,ranks,tokens,time_us,nodes\ndispatch,8,128,3,3\n", "mine.csv:2:18: 8 ranks on 3 nodes"),
        ("op,ranks,tokens,quantity,value\ndispatch,8,128,time_ms,3\n", "did you mean 'time_us'"),
        ("op,ranks,tokens,time_us,health\ndispatch,8,128,3,fair\n", "mine.csv:2:18: health is 'fair'; ok or poor"),
        ("op,ranks,tokens,time_us\ndispatch,8,128,3,4\n", "5 cells under 4 columns"),
        ("id,op,ranks,tokens,time_us\na,dispatch,8,128,3\na,combine,8,128,3\n", "mine.csv:3:1: id 'a' stands twice"),
        ('op,ranks,tokens,time_us\ndispatch,8,128,"3\n', "is a quote missing?"),
        ("op,ranks,tokens,time_us\n", "is table of rows, but holds no measurement"),
    ],
)
def test_a_mistake_is_named_by_line_and_column(text, said, tmp_path):
    with pytest.raises(InputError) as refused:
        read_log(table(tmp_path, text), NODES)
    assert said in str(refused.value)


def test_all_mistakes_are_shown_at_once(tmp_path):
    text = "op,ranks,tokens,time_us\nsideways,8,128,0\ndispatch,8,128,5\ncombine,x,128,3\n"
    with pytest.raises(InputError) as refused:
        read_log(table(tmp_path, text), NODES)
    places = [line.split(": ")[0].rsplit("/", 1)[-1] for line in str(refused.value).splitlines()]
    assert places == ["mine.csv:2:16", "mine.csv:2:1", "mine.csv:4:9"]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_columns_stand_in_any_order_and_optional_ones_may_be_missing(tmp_path_factory, data):
    full = {
        "op": "combine", "ranks": "16", "tokens": "512", "quantity": "time_us", "value": "77.5", "nodes": "2",
        "gpu": "H20", "hidden": "2048", "top_k": "6", "experts": "64", "dtype": "bf16", "sms": "20",
        "note": 'said "so", twice', "cluster": "c", "nic_GBps_per_gpu": "25", "health": "ok",
    }  # fmt: skip
    needed = ["op", "ranks", "tokens", "quantity", "value"]
    chosen = data.draw(st.lists(st.sampled_from([name for name in full if name not in needed]), unique=True))
    names = data.draw(st.permutations(needed + chosen))
    out = io.StringIO()
    csv.writer(out).writerows([names, [full[name] for name in names]])
    (row,) = read_log(table(tmp_path_factory.mktemp("t"), out.getvalue()), NODES).rows
    for name in names:
        assert str(getattr(row, name)) == str(float(full[name]) if name == "nic_GBps_per_gpu" else full[name])
    for name in set(COLUMNS) - set(names) - {"id", "source", "nodes", "gpu", "gpu_moesim"}:
        assert getattr(row, name) is None
