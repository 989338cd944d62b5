"""The page of a whole step shows its attention beside the other kinds, with the numbers of the run."""

import numpy as np
import pytest

import moesim
from moesim.compute import load_gpu
from moesim.report import render_run
from moesim.report.attention_section import context_chart, kinds_table, kinds_words, memory_table

SMALL = {
    "cluster": {"topology": "hgx-h800"},
    "model": {"preset": "deepseek-v3", "n_experts": 32, "hidden": 1024, "expert_hidden": 256, "layers": 5},
    "routing": {"kind": "v3", "top_k": 4, "groups": 8, "top_groups": 4},
    "workload": {"synthetic": {"kind": "uniform"}, "requests": 8, "context": 2048},
    "schedule": {"phase": "decode"},
    "alltoall": {"algorithm": "deepep-low-latency"},
}


@pytest.fixture(scope="module")
def result():
    return moesim.simulate(moesim.load_scenario(SMALL))


def test_the_curves_are_bytes_or_flops_over_the_gpu_s_peaks(result):
    gpu = load_gpu("h800")
    chart = context_chart(result.explanation["attention"])
    curves = {series.label: series for series in chart.series}
    unit = {"(ms)": 1e3, "(µs)": 1e6, "(s)": 1.0}[chart.y_label.split()[-1]]
    for context, seconds in zip(curves["mha"].x, curves["mha"].y, strict=True):
        read = 8 * context * 2 * 128 * 128 * 2.0
        flops = 8 * context * 2 * 128 * 256.0
        assert seconds / unit == pytest.approx(max(read / gpu.hbm_bandwidth, flops / gpu.flops("bf16")))
    assert [name for name, series in curves.items() if series.style == "line"] == ["mla, absorbed", "mla, unabsorbed"]
    assert np.all(np.diff(curves["mla, absorbed"].y) > 0)


def test_the_table_marks_the_model_s_own_and_the_words_name_the_crossover(result):
    facts = result.explanation["attention"]
    own = [row[0] for row in kinds_table(facts).rows if "this model" in str(row[0])]
    assert own == ["mla, absorbed (this model)", "mla, unabsorbed (this model)"]
    assert "170.7 new tokens" in kinds_words(facts)
    assert "170.7" not in kinds_words(facts | {"crossover_tokens": None})


def test_what_a_gpu_holds_sums_to_the_gpu(result):
    table = memory_table(result.explanation["attention"])
    assert sum(row[1].value for row in table.rows) == pytest.approx(load_gpu("h800").memory_bytes)


def test_a_page_has_the_section_for_whole_steps_alone(result):
    page = render_run(result)
    assert 'id="attention"' in page and "This model&#39;s attention and the other kinds" in page
    alone = {**SMALL, "workload": {"synthetic": {"kind": "uniform"}, "tokens_per_rank": 8}}
    assert 'id="attention"' not in render_run(moesim.simulate(moesim.load_scenario(alone)))
