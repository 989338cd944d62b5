"""Wrong scenarios: each is refused with its line and column and what would be right, all mistakes at once."""

import random

import pytest

from moesim.errors import InputError
from moesim.scenario import load_scenario

CLUSTER = "cluster: {topology: h800-8x8-rail}\n"

# one wrong scenario, what is said about it
WRONG = {
    "cluster missing": ("seed: 1\n", ["1:1: cluster: this key is required; add it (the machine)"]),
    "not a mapping": ("- a\n", ["1:1: expected a block of keys, such as cluster and routing"]),
    "misspelt section": (CLUSTER + "rooting: {}\n", ["2:1: rooting: unknown key 'rooting'; did you mean 'routing'?"]),
    "misspelt key": (
        CLUSTER + "routing: {top_kk: 8}\n",
        ["2:11: routing.top_kk: unknown key 'top_kk'; did you mean 'top_k'?"],
    ),
    "unknown topology": (
        "cluster: {topology: h800-8x8-rial}\n",
        ["1:21: cluster.topology: no topology 'h800-8x8-rial'; did you mean 'h800-8x8-rail'?"],
    ),
    "bandwidth without unit": (
        "cluster: {topology: hgx-h800, nic_bandwidth: 400}\n",
        ["1:46: cluster.nic_bandwidth: 400 has no unit; write a bandwidth with its unit, such as 400Gb/s"],
    ),
    "a tolerance too large": (
        CLUSTER + "network: {tolerance: 20%}\n",
        ["2:22: network.tolerance: 0.2 is out of range; give 0 (exact) or 0.01% to 10%"],
    ),
    "a tolerance that is no share": (
        CLUSTER + "network: {tolerance: 1us}\n",
        ["2:22: network.tolerance: '1us' is not a share; write a percentage such as 0.1% or a plain number"],
    ),
    "bits written as bps": (
        "cluster: {topology: hgx-h800, nic_bandwidth: 400Gbps}\n",
        ["1:46: cluster.nic_bandwidth: '400Gbps' is not a bandwidth: unknown unit 'Gbps'; did you mean 400Gb/s?"],
    ),
    "unknown kind and text for a number": (
        CLUSTER + "routing: {kind: v4, top_k: eight}\n",
        [
            "2:17: routing.kind: expected one of v1, v2, v3, got 'v4'",
            "2:28: routing.top_k: expected a whole number, got 'eight'",
        ],
    ),
    "truth for a number": (
        CLUSTER + "routing: {top_k: true}\n",
        ["2:18: routing.top_k: expected a whole number, got True"],
    ),
    "more experts per token than experts": (
        CLUSTER + "routing: {top_k: 300}\n",
        ["2:18: routing.top_k: 300 experts per token, but only 256 experts; lower top_k"],
    ),
    "M above the number of groups": (
        CLUSTER + "routing: {top_groups: 9}\n",
        ["2:23: routing.top_groups: a token may reach 9 groups, but there are 8; give at most 8"],
    ),
    "M groups too small for K": (
        CLUSTER + "routing: {kind: v2, top_k: 16, groups: 64, top_groups: 3}\nmodel: {n_experts: 258}\n",
        ["2:56: routing.top_groups: 3 of 64 groups can hold only 12 of 258 experts, fewer than top_k = 16"],
    ),
    "groups without M": (
        CLUSTER + "routing: {kind: v2, groups: node}\n",
        ["2:10: routing: groups are given (node) but not how many of them a token may reach; add top_groups (M)"],
    ),
    "groups are neither ranks nor nodes": (
        CLUSTER + "routing: {groups: nodes}\n",
        ["2:19: routing.groups: expected one of rank, node, got 'nodes', or expected a whole number"],
    ),
    "more groups than experts": (
        CLUSTER + "routing: {groups: 300}\n",
        ["2:19: routing.groups: 300 groups, but only 256 experts; use fewer groups"],
    ),
    "more rank groups allowed than ranks": (
        CLUSTER + "routing: {groups: rank, top_groups: 9}\nparallel: {ep: 4}\n",
        ["2:37: routing.top_groups: a token may reach 9 groups, but there are 4"],
    ),
    "no ranks": (CLUSTER + "parallel: {ep: 0}\n", ["2:16: parallel.ep: must be at least 1, got 0"]),
    "unknown model": (
        CLUSTER + "model: {preset: deepseek-v33}\n",
        ["2:17: model.preset: no model 'deepseek-v33'; did you mean 'deepseek-v3'?"],
    ),
    "a model that is not there": (
        CLUSTER + "model: {preset: own/config.json}\n",
        ["2:17: model.preset: no such file: "],
    ),
    "two sources of tokens": (
        CLUSTER + "workload: {recording: {name: tiny-v3}, synthetic: {kind: zipf}}\n",
        [
            "2:51: workload.synthetic: recording and synthetic given; "
            "give one of routing, recording, synthetic, expert_ids, counts"
        ],
    ),
    "unknown synthetic kind": (
        CLUSTER + "workload: {synthetic: {kind: zipff}}\n",
        ["2:23: workload.synthetic: expected one of uniform, zipf, lognormal, skew, one_hot_rank, "],
    ),
    "a skew without a figure": (
        CLUSTER + "workload: {synthetic: {kind: skew}}\n",
        ["2:23: workload.synthetic: no figure of the load given; give one of max_violation, balancedness"],
    ),
    "a skew with two figures": (
        CLUSTER + "workload: {synthetic: {kind: skew, max_violation: 1, balancedness: 0.5}}\n",
        ["2:68: workload.synthetic.balancedness: max_violation and balancedness given; give one of"],
    ),
    "a knob of another synthetic kind": (
        CLUSTER + "workload: {synthetic: {kind: zipf, sigma: 2}}\n",
        ["2:36: workload.synthetic.sigma: unknown key 'sigma'; keys known here: correlation, exponent, kind"],
    ),
    "a token count in words": (
        CLUSTER + "workload: {tokens_per_rank: [1, x]}\n",
        ["2:33: workload.tokens_per_rank[1]: expected a whole number, got 'x'"],
    ),
    "a list shorter than the ranks": (
        CLUSTER + "workload: {tokens_per_rank: [1, 2, 3]}\nparallel: {ep: 4}\n",
        ["2:29: workload.tokens_per_rank: 3 values for parallel.ep = 4 ranks; give one value per rank"],
    ),
    "no tokens at all": (
        CLUSTER + "workload: {tokens_per_rank: [0, 0]}\n",
        ["2:29: workload.tokens_per_rank: no rank has any token; give at least one token"],
    ),
    "a layer named twice": (
        CLUSTER + "workload: {recording: {name: tiny-v3, layers: [1, 1]}}\n",
        ["2:47: workload.recording.layers: a layer is named twice"],
    ),
    "a file that is not there": (
        CLUSTER + "workload: {expert_ids: ids.npy}\n",
        ["2:24: workload.expert_ids: no such file: "],
    ),
    "a recorded bias without a recording": (
        CLUSTER + "workload: {synthetic: {kind: zipf}}\nrouting: {bias: recorded}\n",
        ["3:17: routing.bias: there is no recording to take the bias from; set bias: zero, or give a file"],
    ),
    "a misspelt bias": (
        CLUSTER + "routing: {bias: recoded}\n",
        ["2:17: routing.bias: no bias 'recoded'; did you mean 'recorded'?"],
    ),
    "thresholds": (
        CLUSTER + "thresholds: [layer_tim_s < 2ms, layer_time_s < 2, faster]\n",
        [
            "2:14: thresholds[0]: no number 'layer_tim_s' in a summary; did you mean 'layer_time_s'?",
            "2:33: thresholds[1]: '2' has no unit; write a duration with its unit",
            "2:51: thresholds[2]: 'faster' is not a threshold; write it like \"layer_time_s < 2ms\"",
        ],
    ),
    "durations": (
        CLUSTER + "schedule: {start_offset: 5, other_time: 3x}\n",
        ["2:26: schedule.start_offset: 5 has no unit", "2:41: schedule.other_time: '3x' is not a duration"],
    ),
    "unknown distribution": (
        CLUSTER + "schedule: {start_offset: {distribution: lognorml, sigma: 1, scale: 5us}}\n",
        ["2:26: schedule.start_offset: expected one of lognormal, uniform, normal, exponential, got 'lognorml'"],
    ),
    "half a distribution": (
        CLUSTER + "schedule: {start_offset: {distribution: lognormal, sigma: 1}}\n",
        ["2:26: schedule.start_offset.scale: this key is required"],
    ),
    "unknown algorithm": (
        CLUSTER + "alltoall: {algorithm: deepep-norml, dispatch_dtype: fp16}\n",
        [
            "2:23: alltoall.algorithm: expected one of nccl-direct, nccl-pxn, deepep-normal,",
            "2:53: alltoall.dispatch_dtype: expected one of fp8, bf16, got 'fp16'",
        ],
    ),
    "keys without effect": (
        CLUSTER + "placement: {redundant_experts: 32}\nalltoall: {algorithm: nccl-direct, cached_handle: true}\n",
        [
            "2:32: placement.redundant_experts: policy contiguous places no replicas",
            "3:51: alltoall.cached_handle: nccl-direct has no handle",
        ],
    ),
    "faults": (
        CLUSTER + "faults: [{kind: slow_nic, where: n0}, {kind: slow_fan}, {kind: dead_nic, where: n0, to: 2us}]\n",
        [
            "2:10: faults[0]: slow_nic needs the key factor",
            "2:46: faults[1].kind: ",
            "2:89: faults[2].to: dead_nic takes no to; it takes where",
        ],
    ),
    "not a number": (
        CLUSTER + "routing: {scale: .nan}\nlosses: {expert: .inf, form: papr}\nseed: -1\n",
        [
            "2:18: routing.scale: expected a finite number, got nan",
            "3:18: losses.expert: expected a finite number, got inf",
            "3:30: losses.form: expected one of paper, document, got 'papr'; did you mean 'paper'?",
            "4:7: seed: must be at least 0, got -1",
        ],
    ),
    "a name with a line break": (CLUSTER + 'name: "a\\nb"\n', ["2:7: name: must match "]),
    "variants": (
        CLUSTER + "variants:\n  a: {routing.top_kk: 3}\n  b: 3\n  c/d: {}\n  e: {routing: {kind: v1, top_k: 500}}\n"
        "  f: {seed.x: 3}\n  g: {variants: {}}\n",
        [
            "3:7: routing.top_kk: unknown key 'top_kk'; did you mean 'top_k'?",
            "4:6: variants.b: expected a block of keys",
            "5:3: variants.c/d: 'c/d' cannot name a variant",
            "6:34: routing.top_k: 500 experts per token, but only 256 experts",
            "7:7: seed: expected a whole number",
            "8:7: variants.g.variants: a variant cannot hold this",
        ],
    ),
    "variants in a list": (CLUSTER + "variants: [a]\n", ["2:11: variants: expected a block of named variants"]),
    "sweep axes": (
        CLUSTER + "sweep: {axes: {routing.topk: [1], seed: 1..3, rooting.top_k: [2]}, objective: speed}\n",
        [
            "2:79: sweep.objective: no number 'speed' in a summary",
            "2:30: sweep.axes.routing.topk: no key 'routing.topk' in a scenario; did you mean 'top_k'?",
            "2:62: sweep.axes.rooting.top_k: no key 'rooting.top_k' in a scenario; write a dotted key",
        ],
    ),
    "sweep ranges": (
        CLUSTER + "sweep: {axes: {routing.top_k: 8..1, seed: []}}\n",
        ["2:31: sweep.axes.routing.top_k: the range 8..1 holds no value", "2:43: sweep.axes.seed: an axis holds 1 to"],
    ),
    "tab indentation": ("cluster:\n\ttopology: hgx-h800\n", ["2:1: not valid YAML"]),
    "an axis given twice": (
        CLUSTER + "sweep: {axes: {seed: [1, 2]}, zip: [{seed: [3, 4], routing.top_k: [2, 4]}]}\n",
        [
            "2:22: sweep.axes.seed: seed is given twice; give each key one axis",
            "2:44: sweep.zip[0].seed: seed is given twice; give each key one axis",
        ],
    ),
    "weights fetched for every batch and moved as well": (
        CLUSTER + "placement: {policy: per_batch, redundant_experts: 64, rebalance: {every: 2}}\n",
        ["2:66: placement.rebalance: policy per_batch fetches weights for every batch; leave rebalance out"],
    ),
    "replicas that a later placement has no place for": (
        CLUSTER + "placement: {redundant_experts: 64, policy: eplb, rebalance: {every: 2, policy: greedy}}\n",
        ["2:80: placement.rebalance.policy: policy greedy places no replicas; use eplb, or redundant_experts: 0"],
    ),
    "gradients beside weights that move": (
        CLUSTER + "parallel: {ep: 8, dp: 16, gradient_dtype: bf16}\nplacement: {rebalance: {every: 2}}\n",
        ["2:43: parallel.gradient_dtype: weights of experts travel beside the layers, and so do gradients; leave"],
    ),
    "a bias that v1 has not": (
        CLUSTER + "routing: {kind: v1, update_bias: true}\n",
        ["2:34: routing.update_bias: a v1 router has no bias; update_bias: false"],
    ),
    "a bias of dealt experts": (
        CLUSTER + "routing: {update_bias: true}\nworkload: {synthetic: {kind: w0-balanced}}\n",
        ["2:24: routing.update_bias: no router runs on given experts; update_bias: false"],
    ),
    "drafts of no request": (
        CLUSTER + "workload: {draft_tokens: 1}\nschedule: {phase: decode}\n",
        ["2:26: workload.draft_tokens: no requests that draft; give requests and context"],
    ),
    "weights that move in a whole step": (
        CLUSTER + "workload: {sequence_length: 256, tokens_per_rank: 512}\nplacement: {rebalance: {every: 2}}\n",
        ["2:11: workload: weights that move are simulated beside MoE layers alone, not in a whole step; leave"],
    ),
    "a pipeline of a prefill": (
        CLUSTER + "parallel: {ep: 8, pp: 2}\nschedule: {pipeline: 1f1b, recompute: selective, mtp_layers: 1}\n",
        [
            "3:22: schedule.pipeline: a prefill has no pipeline; set schedule.phase: training",
            "2:23: parallel.pp: a prefill has no pipeline; pp: 1, or schedule.phase: training",
            "3:39: schedule.recompute: recompute is not of a prefill; set schedule.phase: training",
            "3:62: schedule.mtp_layers: mtp_layers is not of a prefill; set schedule.phase: training",
        ],
    ),
    "micro-batches of a prefill": (
        CLUSTER + "schedule: {micro_batches: 3}\n",
        ["2:27: schedule.micro_batches: overlap none of a prefill has 1 at a time; leave it out, or set schedule"],
    ),
    "groups without their size": (
        CLUSTER + "parallel: {dp: 16}\n",
        ["2:16: parallel.dp: dp without ep; give ep beside it"],
    ),
    "axes that move together, of two lengths": (
        CLUSTER + "sweep: {zip: [{routing.top_k: [2, 4], routing.scale: [1.0]}, {}]}\n",
        [
            "2:15: sweep.zip[0]: keys that move together need as many values each (routing.top_k: 2, routing.scale: 1)",
            "2:62: sweep.zip[1]: keys that move together need as many values each (none)",
        ],
    ),
    "axes that are no block": (
        CLUSTER + "sweep: {axes: [1], zip: {routing.top_k: [1]}}\n",
        ["2:15: sweep.axes: expected a block of keys, got a list", "2:25: sweep.zip: expected a list, got a block"],
    ),
    "an axis of nothing among several": (
        CLUSTER + "sweep: {zip: [{routing.top_k: []}]}\n",
        ["2:31: sweep.zip[0].routing.top_k: an axis holds 1 to 10000 values, got 0; write [2, 4, 8] or 1..8"],
    ),
    "faults that are none": (
        CLUSTER + "faults:\n"
        "  - {kind: slow_gpu, where: n0.gpu0, factor: 2, from: 2ms, to: 1ms}\n"
        "  - {kind: background, where: rail1, share: 1.0}\n"
        "  - {kind: rank_death, where: n0.gpu0, mode: mask, from: 1ms}\n",
        [
            "3:64: faults[0].to: it ends before it begins; give a time after from",
            "4:45: faults[1].share: 1 leaves nothing; give less than 100 %",
            "5:58: faults[2].from: mask is of the whole run; leave from out, or mode: abort",
        ],
    ),
    "duplicate key": (CLUSTER + CLUSTER, ["2:1: key 'cluster' appears twice in this block"]),
}


def mistakes_in(tmp_path, monkeypatch, text, overrides=()):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InputError) as refused:
        load_scenario("s.yaml", overrides)
    assert refused.value.exit_code == 2
    return str(refused.value).splitlines()


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_scenario_is_refused_with_its_place_and_what_would_be_right(case, tmp_path, monkeypatch):
    text, expected = WRONG[case]
    lines = mistakes_in(tmp_path, monkeypatch, text)
    assert len(lines) == len(expected), lines
    for says in expected:
        assert any(line.startswith(f"s.yaml:{says}") for line in lines), (says, lines)


@pytest.mark.parametrize(
    "path",
    ["../t.yaml", "~/t.yaml", "a/../../t.yaml", "$HOME/t.yaml", "..\\t.yaml", "\\\\host\\t.yaml", "a\nb.yaml", ""],
)
@pytest.mark.parametrize("field", ["cluster.topology", "workload.counts", "compute.table", "routing.bias"])
def test_a_path_cannot_lead_out_of_the_scenarios_folder(field, path, tmp_path, monkeypatch):
    section, key = field.split(".")
    text = {"cluster": {"topology": "hgx-h800"}} | {section: {key: path}}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=field):
        load_scenario(text)


def test_a_symbolic_link_cannot_lead_out_of_the_scenarios_folder(tmp_path, monkeypatch):
    (tmp_path / "outside.csv").write_text("x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "t.csv").symlink_to(tmp_path / "outside.csv")
    (tmp_path / "in" / "s.yaml").write_text(CLUSTER + "compute: {table: ./t.csv}\n")
    with pytest.raises(InputError, match="leads out of the folder"):
        load_scenario(tmp_path / "in" / "s.yaml")


def test_a_scenario_that_is_not_there_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="no scenario 'quickstrat'; did you mean 'quickstart'"):
        load_scenario("quickstrat")
    with pytest.raises(InputError, match="no such file"):
        load_scenario("nowhere/quickstart.yaml")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "routing.top_k=300",
            "-o routing.top_k=300: routing.top_k: 300 experts per token, but only 256 experts; lower top_k",
        ),
        ("routing.top_k=x", "-o routing.top_k=x: routing.top_k: expected a whole number, got 'x'"),
        ("foo.bar=3", "-o foo.bar=3: foo: unknown key 'foo'; keys known here: alltoall"),
        ("routing", "-o routing: 'routing' is not an override; write -o key=value"),
        ("=3", "-o =3: '=3' is not an override"),
        ("a..b=3", "-o a..b=3: 'a..b=3' is not an override"),
        ("seed=", "-o seed=: no value after '='; write null to unset it"),
        ("seed=[1", "-o seed=[1: not valid YAML"),
        ("seed=*a", "-o seed=*a: an alias"),
        ("cluster.topology.x=3", "-o cluster.topology.x=3: 'x' cannot be set below the value 'h800-8x8-rail'"),
        ("variants=3", "-o variants=3: variants: expected a block of named variants"),
    ],
)
def test_a_wrong_override_is_blamed_on_itself(override, says, tmp_path, monkeypatch):
    (line,) = mistakes_in(tmp_path, monkeypatch, CLUSTER, [override])
    assert line.startswith(says)


def test_a_mistake_of_the_base_is_not_repeated_for_every_variant(tmp_path, monkeypatch):
    text = CLUSTER + "seed: x\nvariants: {a: {}, b: {routing: {kind: v1}}}\n"
    assert mistakes_in(tmp_path, monkeypatch, text) == ["s.yaml:2:7: seed: expected a whole number, got 'x'"]


def test_random_damage_to_a_scenario_is_never_more_than_an_input_error():
    rng = random.Random(11)
    junk = [
        None,
        True,
        -1,
        1e9,
        float("nan"),
        "",
        "x",
        "../x",
        [],
        [1],
        {},
        {"kind": "zipf"},
        10**30,
        "1us",
        "node",
        [{}],
    ]
    sections = (
        "name",
        "seed",
        "cluster",
        "model",
        "routing",
        "workload",
        "schedule",
        "thresholds",
        "variants",
        "sweep",
    )
    refused = 0
    for _ in range(400):
        data = {"cluster": {"topology": "hgx-h800"}, "routing": {"kind": "v2", "groups": "rank", "top_groups": 3}}
        data["variants"] = {"a": {"routing.top_k": 3}, 1: {2: 3}} if rng.random() < 0.2 else {"a": {"seed": 3}}
        section = rng.choice(sections)
        value = rng.choice(junk)
        if rng.random() < 0.5 and isinstance(data.get(section), dict):
            data[section][rng.choice([*data[section], "kind", "top_k"])] = value
        else:
            data[section] = value
        try:
            load_scenario(data)
        except InputError as error:
            refused += 1
            assert all(len(line) <= 500 for line in str(error).splitlines())
    assert refused > 200
