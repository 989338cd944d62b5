"""``moesim model``: what is read of a model, on the screen and as JSON."""

import json

import pytest

from moesim.model import model_names
from tests.model.released_configs import RELEASED


def test_a_model_by_name_is_told_in_words(moesim):
    done = moesim("model", "deepseek-v3")
    assert done.code == 0
    assert done.out.startswith("DeepSeek-V3: 671 B parameters, 37.55 B active; published 671 B")
    assert "58 layers (3 to 60): 256, width 2,048" in done.out
    assert "v3: top 8 by sigmoid + bias, in 4 of 8 groups (top2), gates normalised, x 2.5" in done.out
    assert "70,272 bytes per token" in done.out


def test_the_names_are_listed_without_one(moesim):
    assert moesim("model").out.split() == list(model_names())


@pytest.mark.parametrize("name", RELEASED)
def test_every_configuration_is_told_and_its_json_has_the_same_numbers(moesim, here, name):
    (here / "config.json").write_text(json.dumps(RELEASED[name][0]))
    words, plain = moesim("model", "config.json"), moesim("model", "config.json", "--json")
    assert words.code == plain.code == 0, words.err + plain.err
    facts = json.loads(plain.out)
    assert facts["total_parameters"] == pytest.approx(RELEASED[name][1][0] * 1e9, rel=0.02)
    assert sum(one["n_layers"] for one in facts["attention"]) >= 1
    assert facts["kv_cache_bytes_per_token"] >= facts["kv_cache_bytes_per_token_beyond_windows"] >= 0
    assert all(f"note: {note}" in words.out for note in facts["notes"])
    assert facts["moe_layers"] == len(facts["moe_layer_ids"])


def test_a_context_adds_attention_and_memory(moesim):
    asked = ("model", "deepseek-v3", "--context", "4096", "--requests", "128", "--ep", "144", "--redundant", "32")
    words, facts = moesim(*asked), json.loads(moesim(*asked, "--json").out)
    assert "absorbed MLA computes less below 170.7 new tokens" in words.out
    assert "156 requests of 4,096 tokens fit." in words.out
    rows = {row["kind"]: row for row in facts["attention_of_a_layer"]}
    assert [kind for kind, row in rows.items() if row["own"]] == ["mla, absorbed", "mla, unabsorbed"]
    assert rows["mha"]["read_bytes"] == 128 * 4096 * 2 * 128 * 128 * 2
    absorbed = rows["mla, absorbed"]
    assert absorbed["floor_s"] == max(absorbed["flops"] / 989e12, absorbed["read_bytes"] / 3.35e12)
    assert absorbed["kernel_s"] >= absorbed["floor_s"]
    assert facts["memory_bytes"]["requests_that_fit"] == 156
    assert all(row["kernel_s"] >= row["floor_s"] for row in rows.values() if "kernel_s" in row)


def test_a_model_that_does_not_fit_is_said_to(moesim):
    done = moesim("model", "deepseek-v3", "--context", "4096", "--gpu", "h100", "--ep", "8")
    assert "missing: it does not fit" in done.out and "0 requests of 4,096 tokens fit." in done.out
    assert moesim("model", "gpt-oss-120b", "--context", "8192", "--gpu", "h200", "--weights", "bf16").code == 0
    assert moesim("model", "deepseek-v3", "--context", "4096", "--gpu", "h10").code == 2


def test_a_file_that_is_no_configuration_of_an_moe_model_is_refused(moesim, here):
    (here / "config.json").write_text('{"hidden_size": 64}')
    done = moesim("model", "config.json")
    assert done.code == 2 and done.err.count("\n") == 1 and "a dense model" in done.err
