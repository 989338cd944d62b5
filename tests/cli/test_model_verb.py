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


def test_a_file_that_is_no_configuration_of_an_moe_model_is_refused(moesim, here):
    (here / "config.json").write_text('{"hidden_size": 64}')
    done = moesim("model", "config.json")
    assert done.code == 2 and done.err.count("\n") == 1 and "a dense model" in done.err
