"""``moesim run --topology ... --model ... --load ...``: the first answer for somebody without a scenario file."""

import json
from pathlib import Path

import numpy as np
import pytest

import moesim as package
from tests.cli.test_run import payload

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
EXPERTS, TOP_K = 32, 4
CONFIG = {
    "model_type": "deepseek_v3",
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "vocab_size": 1000,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "moe_intermediate_size": 256,
    "intermediate_size": 2048,
    "num_experts_per_tok": TOP_K,
    "n_group": 8,
    "topk_group": 4,
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}
COUNTS = {layer: np.linspace(1, layer, EXPERTS).round(2) for layer in (2, 3)}
FACTS = ("--topology", "hgx-h800", "--model", "config.json", "--load", "counts.csv", "--tokens-per-rank", 64)


@pytest.fixture
def log_folder(here):
    """The current folder of somebody with a released configuration and a log of expert loads."""
    (here / "config.json").write_text(json.dumps(CONFIG))
    rows = [f"{layer},{expert},{n}" for layer, row in COUNTS.items() for expert, n in enumerate(row)]
    (here / "counts.csv").write_text("\n".join(["layer,expert,count", *rows]) + "\n")
    return here


def notes(folder):
    return [(note["kind"], note["text"]) for note in json.loads((folder / "notes.json").read_text())["notes"]]


def test_a_configuration_and_counts_answer_with_a_whole_report(moesim, log_folder):
    done = moesim("run", *FACTS, "-q", "--out", "out/first")
    assert done.code == 0, done.err
    assert done.out.startswith("deepseek_v3-on-hgx-h800: ") and "report: out/first/report.html" in done.out
    page = (log_folder / "out/first/report.html").read_text()
    model = "counts do not say which experts a token selects together"
    assert f'<span class="badge estimated">estimated</span> {model}' in page
    result = package.load_result(log_folder / "out/first")
    assert result.summary["copies_per_token"] == TOP_K and result.summary["gate_mass_lost"] is None
    assert result.tables["steps"].recorded_layer.tolist() == [2, 3]
    loads = result.tables["experts"].groupby("layer").tokens.apply(np.asarray)
    for load, counts in zip(loads, COUNTS.values(), strict=True):
        expected = counts / counts.sum() * 8 * 64 * TOP_K
        # Five standard deviations of 512 tokens, each of which has the expert or not.
        assert (np.abs(load - expected) <= 5 * np.sqrt(expected)).all()


def test_the_limit_of_a_v3_router_is_told_to_be_left_out_and_the_model_keeps_its_kind(moesim, log_folder, no_pages):
    assert moesim("run", *FACTS, "-q", "--out", "run").code == 0
    limit = "counts carry no groups: that a token reaches at most 4 of 8 is not applied"
    assert [kind for kind, text in notes(log_folder / "run") if text.startswith(limit)] == ["estimated"]
    scenario = package.load_scenario(log_folder / "run/scenario.resolved.yaml")
    assert (scenario.routing.kind, scenario.routing.groups, scenario.routing.top_groups) == ("v3", 1, 1)
    assert (scenario.routing.scale, scenario.model.n_experts, scenario.routing.bias) == (2.5, EXPERTS, "recorded")


@pytest.mark.parametrize(
    ("overrides", "limit"),
    [
        (("-o", "routing.groups=8", "-o", "routing.top_groups=2"), "2 of 8"),  # a limit that the user sets
        (("-o", "routing.kind=v1"), None),  # another router than the published: its limit is no matter
    ],
)
def test_only_a_limit_that_would_hold_is_told_to_be_left_out(moesim, log_folder, no_pages, overrides, limit):
    assert moesim("run", *FACTS, *overrides, "-q", "--out", "run").code == 0
    told = [text for _, text in notes(log_folder / "run") if "counts carry no groups" in text]
    assert len(told) == (limit is not None) and all(limit in text for text in told)


def test_the_resolved_scenario_loads_from_anywhere_and_gives_the_same_result(moesim, log_folder, no_pages, monkeypatch):
    (log_folder / "elsewhere").mkdir()
    assert moesim("run", *FACTS, "-o", "routing.top_k=2", "--seed", 5, "-q", "--out", "run").code == 0
    monkeypatch.chdir(log_folder / "elsewhere")
    assert moesim("run", "../run/scenario.resolved.yaml", "-q", "--out", "again").code == 0
    assert payload(log_folder / "elsewhere/again") == payload(log_folder / "run")


def test_relative_paths_start_from_the_current_folder_and_may_lead_up(moesim, log_folder, no_pages, monkeypatch):
    (log_folder / "two.yaml").write_text((TOPOLOGIES / "two-nodes-explicit.yaml").read_text())
    (log_folder / "elsewhere").mkdir()
    monkeypatch.chdir(log_folder / "elsewhere")
    up = [f"../{fact}" if str(fact).endswith((".json", ".csv")) else fact for fact in FACTS]
    up[1] = "../two.yaml"
    done = moesim("run", *up, "--json", "-q", "--out", "run")
    assert done.code == 0, done.err
    assert json.loads(done.out)["name"] == "deepseek_v3-on-two"


def test_counts_in_every_kind_of_file_draw_the_same_tokens(moesim, log_folder, no_pages):
    import pandas as pd

    table = np.stack(list(COUNTS.values()))
    np.savez(log_folder / "counts.npz", counts=table)
    pd.read_csv(log_folder / "counts.csv").to_parquet(log_folder / "counts.parquet")
    loads = []
    for suffix in ("csv", "parquet", "npz"):
        facts = [f"counts.{suffix}" if fact == "counts.csv" else fact for fact in FACTS]
        assert moesim("run", *facts, "-q", "--out", suffix).code == 0
        loads.append(package.load_result(log_folder / suffix).tables["experts"].tokens.tolist())
    assert loads[0] == loads[1] == loads[2]


def test_ranks_and_tokens_per_rank_are_taken_and_the_model_is_deepseek_v3_where_none_is_named(
    moesim, log_folder, no_pages
):
    done = moesim(
        "run", "--topology", "hgx-h800", "--load", "counts.csv", "--tokens-per-rank", 8, "--ep", 4, "-q", "--json"
    )
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert (summary["name"], summary["tokens"]) == ("deepseek-v3-on-hgx-h800", 32)
    latest = log_folder / "results/latest"
    assert package.load_scenario(latest / "scenario.resolved.yaml").model.n_experts == 256
    assert ("info", "224 of 256 experts have no count in any layer: are these counts of this model?") in notes(latest)
    assert latest.resolve().name.startswith("deepseek-v3-on-hgx-h800-")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no scenario; name one, or: moesim run --topology h800"),
        (("--topology", "hgx-h800"), "--topology without --load: there are no tokens to send"),
        (("--topology", "hgx-h800", "--model", "config.json"), "--topology without --load"),
        (("--load", "counts.csv"), "--load without --topology"),
        (("--ep", 4), "--ep without --topology"),
        (
            ("small.yaml", *FACTS),
            "--topology, --model, --load, --tokens-per-rank go without a scenario, and 'small.yaml'",
        ),
        (("small.yaml", "--tokens-per-rank", 4), "--tokens-per-rank goes without a scenario"),
        (("--topology", "hgx-h80", *FACTS[2:]), "no topology 'hgx-h80'; did you mean 'hgx-h800'?"),
        (("--topology", "absent.yaml", *FACTS[2:]), "no such file"),
        ((*FACTS, "--model", "deepseek-v33"), "did you mean 'deepseek-v3'?"),
        ((*FACTS, "--model", "absent.json"), "absent.json: no such file"),
        ((*FACTS, "--model", "counts.json"), "counts.json:1:1: not valid JSON"),
        ((*FACTS, "--load", "absent.csv"), "no such file"),
        ((*FACTS, "--load", "config.json"), "config.json: not a known dump: it holds model_type"),
        ((*FACTS, "--load", "."), "a folder with config.json"),
        ((*FACTS, "--model", "mixtral-8x7b"), "counts.csv:10: expert is 8; a whole number from 0 to 7"),
        ((*FACTS, "--ep", 16), "ep is 16 but hgx-h800 has 8 GPUs"),
        ((*FACTS, "--ep", 0), "parallel.ep: must be at least 1"),
        ((*FACTS, "--tokens-per-rank", 0), "workload.tokens_per_rank: must be at least 1"),
        ((*FACTS, "-o", "workload.synthetic={kind: uniform}"), "routing and synthetic given"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_missing_mixed_and_wrong_facts_are_refused_in_one_line(moesim, log_folder, arguments, said):
    (log_folder / "counts.json").write_text("layer,expert,count\n")
    before = sorted(log_folder.iterdir())
    done = moesim("run", *arguments, "-q")
    assert (done.code, done.out) == (2, "") and said in done.err, done
    assert len(done.err.splitlines()) == 1 and sorted(log_folder.iterdir()) == before
