import pytest

from moesim import load_scenario
from moesim.errors import InputError

DATA = {
    "cluster": {"topology": "hgx-h800"},
    "model": {"preset": "deepseek-v3"},
    "routing": {"kind": "v1", "top_k": 4},
    "workload": {"synthetic": {"kind": "uniform"}},
}


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["placement.learn_from=first"], "'first' is none of first_half, all, batch and no file; did you mean"),
        (["placement.learn_from=nowhere.csv"], "no such file"),
        (["placement.policy=per_batch"], "policy per_batch has no slots to fetch weights into"),
        (["placement.policy=greedy", "placement.redundant_experts=8"], "policy greedy places no replicas"),
        (["placement.policy=random", "placement.redundant_experts=8"], "policy random places no replicas"),
        (["placement.moves=-1"], "placement.moves"),
        (["placement.node_load_limit=0.9"], "placement.node_load_limit"),
        (["placement.policy=afinity"], "placement.policy"),
    ],
)  # fmt: skip
def test_what_a_placement_cannot_be_is_refused_in_one_line(overrides, what):
    with pytest.raises(InputError) as refused:
        load_scenario(DATA, overrides)
    assert what in refused.value.line() and not refused.value.others


def test_a_file_to_learn_from_is_found_from_where_it_was_typed(tmp_path, monkeypatch):
    (tmp_path / "counts.csv").write_text("layer,expert,count\n0,0,1\n")
    monkeypatch.chdir(tmp_path)
    loaded = load_scenario(DATA, ["placement.policy=eplb", "placement.learn_from=counts.csv"])
    assert loaded.source(loaded.placement.learn_from) == str(tmp_path / "counts.csv")
