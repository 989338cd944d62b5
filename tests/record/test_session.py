# ruff: noqa: E402
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moesim.errors import InputError, ResourceError
from moesim.record import record
from moesim.record.__main__ import main
from moesim.recording_format import read_recording
from moesim.routing import RouterSpec, route

pytestmark = pytest.mark.lab


@pytest.fixture(autouse=True)
def quick(monkeypatch, corpus):
    monkeypatch.setattr("moesim.record.session.load_corpus", lambda: corpus)
    monkeypatch.setattr("moesim.record.session.SEQUENCE_LENGTH", 32)
    monkeypatch.setattr("moesim.record.session.SHORT_TOKENS", 96)
    monkeypatch.setattr("moesim.record.session.EARLY_TOKENS", 64)


@pytest.mark.parametrize("balancing", ["none", "v1", "v2", "v3"])
def test_a_recording_routed_again_gives_the_counts_it_holds(tmp_path, sizes, balancing):
    path = tmp_path / f"{balancing}.npz"
    written = record(path, balancing, steps=9, threads=1, sizes=sizes, sequences=8)
    recording = read_recording(path)
    assert recording.meta == written.meta
    assert recording.steps.tolist() == [0, 1, 3, 9]
    main_layer = 2
    assert [len(recording.logits(layer)) for layer in recording.layers] == [96, 256]
    assert recording.logits(1, 3).shape == (64, 32)
    spec = RouterSpec(n_experts=recording.n_experts, **recording.router)
    ids = route(recording.logits(main_layer), spec, bias=recording.bias(main_layer)).expert_ids
    for domain in range(len(recording.domain_names)):
        load = np.bincount(ids[recording.domain == domain].ravel(), minlength=32)
        np.testing.assert_array_equal(load, recording.domain_counts[-1, 1, domain])
    sequence = np.bincount(ids[recording.sequence == 2].ravel(), minlength=32)
    assert recording.sequence_imbalance[-1, 1, 2] == pytest.approx(sequence.max() / sequence.mean())
    assert recording.meta["counts_tokens"] == 192
    assert recording.counts.sum(axis=2).tolist() == [[192 * 8] * 2] * 4


def test_recordings_of_different_seeds_and_balancing_are_of_one_text(tmp_path, sizes):
    one = record(tmp_path / "a.npz", "v1", steps=1, seed=0, threads=1, sizes=sizes, sequences=4)
    two = record(tmp_path / "b.npz", "v3", steps=1, seed=9, threads=1, sizes=sizes, sequences=4)
    assert one.meta["text_sha256"] == two.meta["text_sha256"]
    assert (one.meta["model"]["n_shared"], two.meta["model"]["n_shared"]) == (2, 1)


def test_a_recording_says_how_it_was_made(tmp_path, sizes):
    lines = []
    recording = record(tmp_path / "made.npz", "v3", steps=3, seed=4, threads=1, sizes=sizes, sequences=4,
                       bias_rate=0.01, progress=lines.append)  # fmt: skip
    training, provenance = recording.meta["training"], recording.meta["provenance"]
    assert (training["steps"], training["seed"], training["tokens_seen"]) == (3, 4, 3 * 8 * 32)
    assert [point["step"] for point in training["curve"]] == [1, 2, 3]
    assert recording.meta["balancing"]["bias_rate"] == 0.01
    assert "--balancing v3 --steps 3 --seed 4" in provenance["command"]
    assert "--bias-rate 0.01" in provenance["command"]
    assert str(tmp_path) not in str(recording.meta)
    assert provenance["torch"] == str(torch.__version__)
    assert provenance["text"]["train/python"]["bytes"] == 20_000
    assert "step 3/3" in lines[-1]


def test_a_budget_of_seconds_decides_the_steps(tmp_path, sizes):
    recording = record(tmp_path / "timed.npz", "v1", seconds=0.3, threads=1, sizes=sizes, sequences=4)
    assert recording.meta["training"]["steps"] == recording.steps[-1] >= 1


def test_the_settings_of_torch_are_left_as_they_were(tmp_path, sizes):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    record(tmp_path / "a.npz", "v1", steps=1, threads=1, sizes=sizes, sequences=4)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_a_place_that_cannot_be_written_is_refused_before_the_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        record(tmp_path / "file" / "a.npz", "v1", steps=10**9)
    with pytest.raises(InputError, match=r"does not end in \.npz"):
        record(tmp_path / "a.npy", "v1", steps=10**9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"balancing": "v4"}, "no balancing 'v4'; methods are none, v1, v2, v3"),
        ({"steps": 3, "seconds": 1.0}, "both steps and seconds"),
        ({"steps": 0}, "steps is 0, not positive"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"threads": 0}, "threads is 0"),
        ({"size": "huge"}, "no size 'huge'; sizes are tiny, small"),
        ({"device": "tpu"}, "no device 'tpu' here"),
        ({"balancing": "v1", "bias_rate": 0.1}, "balancing v1 has no bias"),
        ({"balancing": "v3", "bias_rate": -1.0}, "bias rate is -1.0"),
    ],
)
def test_a_wrong_argument_is_refused_and_nothing_is_written(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        record(tmp_path / "never.npz", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_load_of_each_layer(tmp_path, monkeypatch, capsys, sizes):
    monkeypatch.setitem(sys.modules["moesim.record.session"].SIZES, "tiny", sizes)
    out = tmp_path / "typed.npz"
    assert main(["--out", str(out), "--balancing", "v2", "--steps", "2", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert [line.split(":")[0] for line in captured.out.splitlines()] == ["layer 1", "layer 2"]
    assert "step 2/2" in captured.err
    assert read_recording(out).name == "typed"


def test_the_command_answers_a_wrong_value_with_exit_code_2(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "a.npz"), "--balancing", "v1", "--bias-rate", "1"]) == 2
    assert "only v3 takes a rate" in capsys.readouterr().err


def test_the_module_can_be_run(tmp_path):
    ran = subprocess.run([sys.executable, "-m", "moesim.record", "--help"], capture_output=True, text=True)
    assert ran.returncode == 0
    assert "--balancing {none,v1,v2,v3}" in ran.stdout
