"""``moesim routing`` and the files that come out of it, through runs, placements and back."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from moesim import load_scenario, simulate
from moesim.dumps import read_routing
from moesim.errors import InputError

# 3 layers, the first of them dense; 64 tokens of 32 experts, a third of them on the first four.
RNG = np.random.default_rng(0)
IDS = np.stack([np.argsort(RNG.random((64, 32)) - 0.4 * (np.arange(32) < 4), axis=1)[:, :4] for _ in range(2)])
COUNTS = np.stack([np.bincount(rows.ravel(), minlength=32) for rows in IDS])


@pytest.fixture
def dump(here):
    np.savez(here / "dump.npz", topk_ids=np.concatenate([np.zeros_like(IDS[:1]), IDS]))
    return here / "dump.npz"


@pytest.fixture
def table(here):
    rows = [f"{layer},{e},{n}" for layer, row in enumerate(COUNTS, 1) for e, n in enumerate(row)]
    zeros = [f"0,{e},0" for e in range(32)]
    (here / "load.csv").write_text("\n".join(["layer_id,expert_id,count", *zeros, *rows]) + "\n")
    return here / "load.csv"


def test_import_writes_a_trace_and_says_what_it_found(moesim, dump):
    done = moesim("routing", "import", "dump.npz", "--experts", "32", "--out", "trace.npz")
    assert done.code == 0, done.err
    assert "expert ids of 64 tokens, 2 layers (1-2), 32 experts, top-4" in done.out
    assert "note: layers 0 select nothing and are left out: dense layers" in done.out
    assert np.array_equal(read_routing("trace.npz").ids, IDS)


def test_show_prints_the_load_of_each_layer(moesim, dump):
    done = moesim("routing", "show", "dump.npz", "--experts", "32", "--ranks", "8", "--ranks-per-node", "4", "--json")
    rows = json.loads(done.out)["layers"]
    rank = np.arange(32) // 4
    for row, ids, counts in zip(rows, IDS, COUNTS, strict=True):
        by_rank = np.bincount(rank, weights=counts)
        assert row["expert_load_max_over_mean"] == counts.max() / counts.mean()
        assert row["rank_load_max_over_mean"] == by_rank.max() / by_rank.mean()
        assert row["rank_copies_per_token"] == np.mean([len(set(rank[token])) for token in ids])
        assert row["node_copies_per_token"] == np.mean([len(set(rank[token] // 4)) for token in ids])
    shown = moesim("routing", "show", "dump.npz", "--experts", "32")
    assert f"{rows[0]['expert_load_max_over_mean']:.4g}" in shown.out


def test_counts_are_imported_and_shown_too(moesim, table):
    done = moesim("routing", "import", "load.csv", "--out", "t.npz")
    assert done.code == 0 and "expert counts of 1 steps, 2 layers (1-2), 32 experts" in done.out, done.err
    assert np.array_equal(read_routing("t.npz").expert_counts(), COUNTS)
    rows = json.loads(moesim("routing", "show", "t.npz", "--json").out)["layers"]
    assert [row["expert_load_max_over_mean"] for row in rows] == [row.max() / row.mean() for row in COUNTS]
    assert rows[0]["rank_copies_per_token"] is None
    assert moesim("routing", "export", "t.npz", "--form", "topk_idx", "--out", "i.npy").code == 2
    assert moesim("routing", "export", "t.npz", "--form", "parquet", "--out", "c.parquet").code == 0
    assert np.array_equal(read_routing("c.parquet").expert_counts(), COUNTS)


def test_a_run_takes_ids_as_they_are_and_counts_as_counts(moesim, dump, table):
    given = {
        "small.yaml": [],
        "ids": ["-o", "workload.routing=dump.npz"],
        "counts": ["-o", "workload.routing=load.csv"],
    }
    for name in ("ids", "counts"):
        drop = ["-o", "workload.synthetic=null", "-o", "workload.tokens_per_rank=8"]
        result = simulate(load_scenario("small.yaml", [o for o in [*given[name], *drop] if o != "-o"]))
        assert [note.text for note in result.notes if "dense layers" in note.text]
        assert set(result.tables["steps"]["layer"]) == {0, 1}
        assert set(result.tables["steps"]["recorded_layer"]) == {1, 2}
        loads = result.tables["experts"].groupby("layer")["tokens"].apply(list)
        if name == "ids":
            assert np.array_equal(loads.to_list(), COUNTS)


def test_routing_that_is_named_takes_the_place_of_the_scenarios_tokens(here, dump):
    named = load_scenario("small.yaml", ["workload.routing=dump.npz"])
    assert named.workload.synthetic is None and named.workload.routing.file == str(here / "dump.npz")
    with pytest.raises(InputError, match="routing and synthetic given"):
        load_scenario("small.yaml", ["workload.routing=dump.npz", "workload.synthetic={kind: uniform}"])


def test_a_folder_is_found_beside_the_scenario_and_layers_are_chosen(here, dump):
    (here / "dumps").mkdir()
    dump.rename(here / "dumps" / "dump.npz")
    text = (
        (here / "small.yaml")
        .read_text()
        .replace(
            "  synthetic: {kind: lognormal, sigma: 0.8, sequence_length: 16}\n",
            "  routing: {file: dumps, layers: [2]}\n",
        )
    )
    (here / "s.yaml").write_text(text.replace("tokens_per_rank: 64", "tokens_per_rank: 8"))
    result = simulate(load_scenario(here / "s.yaml"))
    assert result.tables["experts"]["tokens"].tolist() == COUNTS[1].tolist()


def test_what_is_not_there_or_leads_out_is_refused_at_its_place(moesim, here):
    for file in ("absent.pt", "../secret.npz", "absent"):
        text = (
            (here / "small.yaml")
            .read_text()
            .replace("  synthetic: {kind: lognormal, sigma: 0.8, sequence_length: 16}\n", f"  routing: {file}\n")
        )
        (here / "s.yaml").write_text(text)
        done = moesim("run", "s.yaml")
        assert done.code == 2 and "s.yaml:6:" in done.err and "Traceback" not in done.err


def test_plain_arrays_and_tables_come_out_again(moesim, dump):
    moesim("routing", "import", "dump.npz", "--experts", "32", "--out", "t.npz")
    assert moesim("routing", "export", "t.npz", "--form", "topk_idx", "--layer", "2", "--out", "i.npy").code == 0
    assert np.array_equal(np.load("i.npy"), IDS[1]) and np.load("i.npy").dtype == np.int64
    for form, name in (("npz", "a.npz"), ("parquet", "a.parquet")):
        assert moesim("routing", "export", "t.npz", "--form", form, "--out", name).code == 0
        again = read_routing(name, n_experts=32)
        assert np.array_equal(again.ids, IDS) and again.layers == (1, 2)
    assert pq.read_table("a.parquet").column_names == ["layer", "token", "topk_idx"]
    assert moesim("routing", "export", "t.npz", "--form", "topk_idx", "--layer", "7", "--out", "i.npy").code == 2


@pytest.mark.parametrize("form", ["sglang", "tensorrt-llm", "json"])
def test_a_placement_written_for_an_engine_and_read_back_gives_the_same_result(moesim, dump, form):
    base = ["workload.synthetic=null", "workload.routing=dump.npz", "workload.tokens_per_rank=8"]
    eplb = [*base, "placement.policy=eplb", "placement.redundant_experts=8"]
    done = moesim("place", "small.yaml", *(f"-o{o}" for o in eplb), "--write", form, "--out", f"map-{form}.yaml")
    assert done.code == 0 and f"written: map-{form}.yaml" in done.out
    placed = simulate(load_scenario("small.yaml", eplb))
    again = simulate(load_scenario("small.yaml", [*base, f"placement.file=map-{form}.yaml"]))
    assert placed.summary == again.summary
    for name in placed.tables:
        assert placed.tables[name].equals(again.tables[name])
    assert (
        placed.summary["rank_load_max_over_mean"]
        < simulate(load_scenario("small.yaml", base)).summary["rank_load_max_over_mean"]
    )


def test_a_map_beside_a_policy_or_of_another_model_is_refused(moesim, dump):
    moesim("place", "small.yaml", "--write", "json", "--out", "map.json")
    with pytest.raises(InputError, match="the map says where experts are, and so does the policy"):
        load_scenario("small.yaml", ["placement.file=map.json", "placement.policy=eplb"])
    with pytest.raises(InputError, match="a map of 32 experts, the model has 64"):
        simulate(load_scenario("small.yaml", ["placement.file=map.json", "model.n_experts=64"]))


def test_place_promises_what_a_run_keeps(moesim, dump):
    base = ["workload.synthetic=null", "workload.routing={file: dump.npz, layers: [1]}", "workload.tokens_per_rank=8"]
    for choice in ("same_node", "hash", "round_robin"):
        options = [*base, f"placement.replica_choice={choice}"]
        done = moesim("place", "small.yaml", *(f"-o{o}" for o in options), "--redundant", "8", "--json", "-q")
        promised = {row["placement"]: row["loads"]["rank"] for row in json.loads(done.out)["options"]}
        learnt = ["placement.policy=eplb_global", "placement.redundant_experts=8", "placement.learn_from=first_half"]
        kept = simulate(load_scenario("small.yaml", [*options, *learnt]))
        assert promised["eplb_global, 8 redundant"] == pytest.approx(kept.summary["rank_load_max_over_mean"], rel=1e-12)


def test_ranks_without_an_expert_are_said(here):
    np.savez(here / "few.npz", topk_idx=np.array([[0, 1], [2, 3]] * 8))
    few = ["model.n_experts=4", "routing.kind=v1", "routing.top_k=2", "routing.groups=1", "routing.top_groups=1"]
    few += ["workload.synthetic=null", "workload.routing=few.npz", "workload.tokens_per_rank=2"]
    result = simulate(load_scenario("small.yaml", few))
    assert any("4 of 8 ranks hold no expert" in note.text for note in result.notes)


def test_check_is_a_gate_on_balance(moesim, here, dump):
    rng = np.random.default_rng(1)
    for name, preferred in (("even", 0.0), ("hot", 0.6)):
        ids = [np.argsort(rng.random((4096, 32)) - preferred * (np.arange(32) < 4), axis=1)[:, :4] for _ in range(2)]
        np.savez(here / f"{name}.npz", topk_ids=np.stack(ids))
    gate = ("--experts", "32", "--fail-over", "rank_load_max_over_mean=5%")
    passed = moesim("routing", "check", "even.npz", "--against", "hot.npz", *gate)
    assert passed.code == 0 and "rank_load_max_over_mean" in passed.out, passed.err
    failed = moesim("routing", "check", "hot.npz", "--against", "even.npz", *gate, "--json")
    assert failed.code == 4 and failed.err.strip() == "worse than even.npz: rank_load_max_over_mean"
    data = json.loads(failed.out)
    assert data["failed"] == ["rank_load_max_over_mean"]
    row = next(row for row in data["figures"] if row["name"] == "rank_load_max_over_mean")
    assert row["limit"] == 0.05 and row["worse"] > row["noise"] > 0
    assert moesim("routing", "check", "hot.npz", "--against", "even.npz", "--experts", "32").code == 0, (
        "no gate asked for"
    )


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ("rank_load=5%", "no figure 'rank_load': did you mean"),
        ("5%", "'5%' is no NAME=5%"),
        ("max_violation=lots", "'lots' is not a percentage"),
        ("max_violation=-5%", "'-5%' is not a percentage"),
        ("node_copies_per_token=5%", "node_copies_per_token needs expert ids, and these are counts"),
    ],
)
def test_a_gate_that_cannot_be_is_refused(moesim, table, limit, what):
    done = moesim("routing", "check", "load.csv", "--against", "load.csv", "--fail-over", limit)
    assert done.code == 2 and what.split(":")[0] in done.err and len(done.err.strip().splitlines()) == 1


def test_a_scenario_s_routing_is_shown_fitted_and_the_block_is_a_scenario_again(moesim, here):
    drawn = ["-o", "workload.synthetic={kind: zipf, exponent: 0.9}", "-o", "workload.tokens_per_rank=512"]
    free = ["-o", "routing.kind=v1", "-o", "routing.groups=1", "-o", "routing.top_groups=1"]
    done = moesim("routing", "show", "small.yaml", *drawn, *free, "--fit")
    assert done.code == 0, done.err
    block = next(line for line in done.out.splitlines() if line.startswith("workload: {synthetic: {"))
    (here / "again.yaml").write_text((here / "small.yaml").read_text().split("workload:")[0] + block + "\n")
    again = load_scenario("again.yaml").workload.synthetic
    assert again.kind == "zipf" and again.exponent == pytest.approx(0.9, rel=0.1)
    figures = json.loads(moesim("routing", "show", "small.yaml", *drawn, *free, "--fit", "--json").out)["fit"]
    assert figures["block"]["exponent"] == again.exponent and len(figures["layers"]) == 1
    said = moesim("routing", "show", "small.yaml", "-o", "workload.synthetic={kind: w9}")
    assert said.code == 2 and "w0-balanced" in said.err
    said = moesim("routing", "show", "small.yaml", *drawn, "--top-k", 4)
    assert said.code == 2 and "says itself what its routing is" in said.err


def test_a_scenario_s_routing_is_written_for_benchmarks_rank_by_rank(moesim, here):
    drawn = ["-o", "workload.synthetic={kind: w6-rotating-hotspot}", "-o", "workload.tokens_per_rank=24"]
    whole = []
    for rank in range(8):
        out = f"rank{rank}.npy"
        done = moesim("routing", "export", "small.yaml", *drawn, "--form", "topk_idx", "--rank", rank, "--out", out)
        assert done.code == 0, done.err
        whole.append(np.load(out))
        assert whole[-1].shape == (24, 4) and whole[-1].dtype == np.int64
    assert moesim("routing", "import", "small.yaml", *drawn, "--out", "t.npz").code == 0
    trace = read_routing("t.npz")
    assert np.array_equal(trace.ids[0], np.concatenate(whole)) and np.array_equal(trace.rank, np.repeat(range(8), 24))
    assert (np.concatenate(whole) < 8).mean() > 0.75  # the hot quarter
    late = moesim("routing", "export", "small.yaml", *drawn, "--step", 3, "--form", "topk_idx", "--out", "late.npy")
    assert late.code == 0 and ((np.load("late.npy") // 8) == 1).mean() > 0.75
    for wrong, says in (
        (["--rank", 8], "no token is known to start on rank 8"),
        (["--layer", 1, "--form", "topk_idx"], "no layer 1"),
    ):
        refused = moesim("routing", "export", "small.yaml", *drawn, *wrong, "--out", "no.npz")
        assert refused.code == 2 and says in refused.err and not (here / "no.npz").exists()
    assert moesim("routing", "export", "t.npz", "-o", "seed=1", "--out", "no.npz").code == 2


@pytest.mark.parametrize(
    "kind", ["vllm-uniform-random", "sglang-round-robin", "deepep-test-low-latency", "w4-ragged-sources"]
)
def test_dealt_experts_are_simulated_and_exported_alike(moesim, here, kind):
    how = [f"workload.synthetic={{kind: {kind}}}", "workload.tokens_per_rank=16"]
    assert moesim("routing", "export", "small.yaml", *(f"-o{o}" for o in how), "--out", "x.npz").code == 0
    load = simulate(load_scenario("small.yaml", how)).tables["experts"]["tokens"].to_numpy()
    ids = np.load("x.npz")["topk_idx"][0]
    assert np.array_equal(load, np.bincount(ids[ids >= 0], minlength=32))


def test_ranks_that_an_engine_s_even_dealing_leaves_idle_are_said(here):
    few = ["workload.synthetic={kind: sglang-round-robin}", "workload.tokens_per_rank=[1, 1, 0, 0, 0, 0, 0, 0]"]
    notes = [note.text for note in simulate(load_scenario("small.yaml", few)).notes]
    assert "layer 0: 4 of 8 ranks are sent no token: 1, 3, 5, 7" in notes
    even = simulate(load_scenario("small.yaml", ["workload.synthetic={kind: tensorrt-llm-balanced}", few[1]]))
    assert not [note.text for note in even.notes if "no token" in note.text]


def test_drawn_workloads_do_not_depend_on_the_number_of_workers(moesim, here):
    kinds = "[{kind: skew, max_violation: 1.5}, {kind: w1-hot-experts}, {kind: lognormal, step_correlation: 0.5}]"
    text = (here / "small.yaml").read_text()
    (here / "swept.yaml").write_text(
        f"{text}  steps: 2\nsweep: {{axes: {{workload.synthetic: {kinds}, seed: [0, 1]}}}}\n"
    )
    tables = []
    for jobs in (1, 2):
        done = moesim("sweep", "swept.yaml", "-q", "--jobs", jobs, "--out", f"jobs{jobs}")
        assert done.code == 0, done.err
        tables.append(pq.read_table(f"jobs{jobs}/points.parquet").to_pandas())
    assert len(tables[0]) == 6 and tables[0].equals(tables[1])
