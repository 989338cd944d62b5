"""Recordings of one seed ship; those of a second, in tests/data where they are there, are of the same kind.

An error over one training run is a sample of one. The table of docs/recordings.md has a row for every recording, of
either seed (``tiny-v3``, ``tiny-v3-seed1``), with the figures that the file has.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from moesim.recording_format import read_recording
from moesim.routing import RouterSpec, route

ROOT = Path(__file__).parents[1]
SHIPPED = ("tiny-none", "tiny-v1", "tiny-v2", "tiny-v3")
SECOND = tuple(sorted((ROOT / "tests/data").glob("tiny-*-seed1.npz")))
ALL = [*SHIPPED, *map(str, SECOND)]


def row(recording):
    """The recording's row of the table: what a reader of the file finds, rounded as the page rounds."""
    final = recording.counts[-1]
    first = np.unique(recording.sequence, return_index=True)[1]
    unseen = np.isin(recording.domain[first], [recording.domain_names.index(name) for name in recording.held_out])
    within = recording.sequence_imbalance[-1, recording.layers.index(2)]
    language = recording.language_loss[-1]
    held = np.isin(recording.domain_names, recording.held_out)
    numbers = [f"{load.max() / load.mean():.2f}" for load in final]
    pairs = (np.median(within[~unseen]), np.median(within[unseen])), (language[~held].mean(), language[held].mean())
    return [", ".join(numbers), *(f"{inside:.2f} / {outside:.2f}" for inside, outside in pairs)]


def test_the_second_seed_is_whole_or_not_there():
    assert len(SECOND) in (0, len(SHIPPED))


@pytest.mark.parametrize("source", ALL, ids=lambda source: Path(source).stem)
def test_the_page_has_the_figures_of_every_recording(source):
    recording, name = read_recording(source), Path(source).stem
    found = re.search(rf"^\| `{name}` \| (.*) \|$", (ROOT / "docs/recordings.md").read_text(), re.MULTILINE)
    wanted = " | ".join(row(recording))
    assert found is not None, f"docs/recordings.md lacks | `{name}` | {wanted} |"
    assert found[1] == wanted


@pytest.mark.parametrize("source", SECOND, ids=lambda source: source.stem)
def test_a_second_seed_differs_in_nothing_but_the_seed(source):
    second = read_recording(source)
    first = read_recording(source.stem.removesuffix("-seed1"))
    assert second.meta["training"]["seed"] == 1 and first.meta["training"]["seed"] == 0
    for part in ("router", "balancing", "model", "domains", "held_out", "loss_names", "moe_layers"):
        assert second.meta[part] == first.meta[part], part
    assert np.array_equal(second.steps, first.steps)
    for name in ("sequence", "domain", "counts", "domain_counts", "biases", "losses", "sequence_imbalance"):
        assert getattr(second, name).shape == getattr(first, name).shape, name
    assert np.array_equal(second.sequence, first.sequence)
    assert not np.array_equal(second.counts[-1], first.counts[-1])


@pytest.mark.parametrize("source", SECOND, ids=lambda source: source.stem)
def test_what_was_recorded_is_what_the_router_selects(source):
    recording = read_recording(source)
    spec = RouterSpec(n_experts=recording.n_experts, **recording.router)
    layer = recording.layers[len(recording.layers) // 2]  # of which every token was recorded
    ids = route(recording.logits(layer), spec, recording.bias(layer)).expert_ids
    trained = [recording.domain_names.index(name) for name in recording.domain_names if name not in recording.held_out]
    load = np.bincount(ids[np.isin(recording.domain, trained)].ravel(), minlength=recording.n_experts)
    assert np.array_equal(load, recording.counts[-1, recording.layers.index(layer)])
