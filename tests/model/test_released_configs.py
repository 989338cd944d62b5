"""Released config.json files of every family: sizes, router and layers as their authors have them."""

import csv
import json
from pathlib import Path

import pytest

from moesim.model import load_model, model_names
from tests.model.released_configs import RELEASED, Right

REFERENCE = Path(__file__).parents[3] / "shared/reference"
# Names that are rounded to one digit; the sum of the weights stands for the total.
ROUNDED = {"gemma-4-26b-a4b", "edge0-8b-a1b", "trinity-nano"}


def read(tmp_path, config):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return load_model(str(path))


def said(model):
    router = model.router
    groups = f"{router.n_groups}/{router.top_groups}"
    return (
        model.moe_layers, model.n_experts, model.shared_hidden, router.kind, router.score, router.top_k,
        router.normalize, router.scale, groups, model.attention.kind,
    )  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_configuration_is_read_as_its_authors_have_it(name, tmp_path):
    config, right = RELEASED[name][0], Right(*RELEASED[name][1])
    model = read(tmp_path, config)
    assert said(model) == right[1:]
    assert model.total_parameters == pytest.approx(right.total * 1e9, rel=0.02)
    assert right.kind == "v3" or not any("bias" in note for note in model.uncertain)


def reference_rows():
    table = REFERENCE / "configs.csv"
    if table.is_file():
        with open(table, newline="") as stream:
            for row in csv.DictReader(stream):
                if (REFERENCE / "configs" / f"{row['model']}.json").is_file():
                    yield pytest.param(row, id=row["model"])


def whole(row, column):
    return int(float(row[column] or 0))


@pytest.mark.skipif(not (REFERENCE / "configs.csv").is_file(), reason="the reference is not here")
@pytest.mark.parametrize("row", list(reference_rows()))
def test_every_file_of_the_reference_is_read_as_its_table_says(row):
    model = load_model(str(REFERENCE / "configs" / f"{row['model']}.json"))
    limits = f"{whole(row, 'n_groups')}/{whole(row, 'group_limit')}"
    assert said(model) == (
        whole(row, "moe_layers"), whole(row, "n_experts"), whole(row, "shared_width"), row["moesim_kind"],
        row["router_score"], whole(row, "top_k"), row["normalised"] == "True", float(row["scale"]), limits,
        row["attention"],
    )  # fmt: skip
    assert (model.router.kind == "v3") == (row["selection_bias"] == "True")
    for name, column in (
        ("hidden", "hidden"), ("layers", "layers"), ("expert_hidden", "moe_width"), ("vocab", "vocab"),
        ("zero_experts", "zero_experts"), ("n_shared", "n_shared"), ("ffn_matrices", "matrices_per_ffn"),
        ("mtp_layers", "mtp_layers"),
    ):  # fmt: skip
        assert getattr(model, name) == whole(row, column), name
    assert (model.latent or model.hidden) == whole(row, "expert_input_width")
    if model.dense_layers and row["dense_width"]:
        assert model.dense_hidden == whole(row, "dense_width")
    if row["model_type"] != "switch_transformers":  # whose weight file has one matrix, against its configuration
        assert model.tied == (row["tied"] == "True")
    if row["model"] != "gemma-4-26b-a4b":  # whose row has the heads of its sliding layers
        sizes = ("heads", "kv_lora_rank") if row["attention"] == "mla" else ("heads", "kv_heads", "head_dim")
        assert [getattr(model.attention, size) for size in sizes] == [whole(row, size) for size in sizes]
    total = row["total_by_sizes" if row["model"] in ROUNDED else "published_total"]
    assert model.total_parameters == pytest.approx(float(total), rel=0.02)


def preset_of(name):
    """The preset of a released model, by the name that the table has for it."""
    names = {"deepseek-moe-16b": "deepseek-v1", "qwen3-coder-480b": "qwen3-coder-480b-a35b"}
    return names.get(name, name)


@pytest.mark.parametrize("name", [name for name in RELEASED if preset_of(name) in model_names()])
def test_a_preset_and_its_configuration_are_the_same_model(name, tmp_path):
    preset, read_one = load_model(preset_of(name)), read(tmp_path, RELEASED[name][0])
    assert said(preset) == said(read_one)
    assert preset.total_parameters == pytest.approx(read_one.total_parameters, rel=1e-4)
    assert preset.kv_cache_bytes_per_token() == read_one.kv_cache_bytes_per_token()
    windows = [(len(one.layers), one.window) for one in preset.attentions]
    assert windows == [(len(one.layers), one.window) for one in read_one.attentions]


def test_a_token_passes_its_own_experts_of_jetmoes_attention_alone(tmp_path):
    assert read(tmp_path, RELEASED["jetmoe-8b"][0]).active_parameters == pytest.approx(2.2e9, rel=0.07)
