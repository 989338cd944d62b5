"""The recording file: what is written comes back, and what is not a sound recording is refused in one line."""

import hashlib
import io
import json
import os
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moesim.errors import InputError, ResourceError
from moesim.recording_format import (
    Recording,
    is_recording,
    read_recording,
    recordings_directory,
    write_recording,
)

EXPERTS, TOP_K, LAYERS, DOMAINS = 16, 4, (1, 3), ("code", "prose", "tables")


def made_up_recording(seed=0):
    rng = np.random.default_rng(seed)
    sequences, length, snapshots, early = 6, 16, 3, 32
    tokens = sequences * length
    text = rng.integers(0, 256, tokens, dtype=np.uint8)
    domain_counts = rng.integers(0, 50, (snapshots, len(LAYERS), len(DOMAINS), EXPERTS))
    meta = {
        "schema_version": 1,
        "name": "made-up",
        "router": {
            "kind": "v1", "score": "softmax", "n_groups": 1, "top_groups": 1, "group_score": "max",
            "normalize": False, "scale": 1.0, "top_k": TOP_K,
        },
        "balancing": {"name": "none"},
        "n_experts": EXPERTS,
        "moe_layers": list(LAYERS),
        "model": {},
        "domains": list(DOMAINS),
        "held_out": ["tables"],
        "text_sha256": hashlib.sha256(text.tobytes()).hexdigest(),
        "loss_names": ["expert", "z"],
        "training": {},
        "provenance": {},
    }  # fmt: skip
    return Recording(
        meta=meta,
        sequence=np.repeat(np.arange(sequences, dtype=np.int32), length),
        domain=np.repeat(np.arange(sequences, dtype=np.int8) % 3, length),
        token_bytes=text,
        last_logits={
            1: rng.normal(size=(64, EXPERTS)).astype(np.float16),
            3: rng.normal(size=(tokens, EXPERTS)).astype(np.float16),
        },
        steps=np.array([0, 10, 100]),
        early_logits=rng.normal(size=(snapshots - 1, len(LAYERS), early, EXPERTS)).astype(np.float16),
        counts=domain_counts[:, :, :2].sum(axis=2),
        domain_counts=domain_counts,
        biases=rng.normal(size=(snapshots, len(LAYERS), EXPERTS)).astype(np.float32),
        losses=rng.random((snapshots, len(LAYERS), 2)),
        language_loss=rng.random((snapshots, len(DOMAINS))),
        sequence_imbalance=1 + rng.random((snapshots, len(LAYERS), sequences)),
    )


@pytest.fixture
def recording():
    return made_up_recording()


@pytest.fixture
def saved(tmp_path, recording):
    path = tmp_path / "made-up.npz"
    write_recording(path, recording)
    return path


def members(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def rewrite(path, **changes):
    """Write the file again with members replaced, or left out where the new value is None."""
    arrays = members(path) | changes
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})


def with_meta(path, **changes):
    meta = json.loads(members(path)["meta"].tobytes()) | changes
    return np.frombuffer(json.dumps(meta).encode(), np.uint8)


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_recording(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_what_is_written_comes_back(saved, recording):
    back = read_recording(saved)
    assert back.meta == recording.meta
    assert (back.name, back.n_experts, back.layers) == ("made-up", EXPERTS, LAYERS)
    assert (back.domain_names, back.held_out) == (DOMAINS, ("tables",))
    assert back.loss_names == ("expert", "z")
    assert back.n_tokens == 96
    for name in ("sequence", "domain", "token_bytes", "steps", "early_logits", "counts", "domain_counts",
                 "biases", "losses", "language_loss", "sequence_imbalance"):  # fmt: skip
        was, now = getattr(recording, name), getattr(back, name)
        assert was.dtype == now.dtype
        np.testing.assert_array_equal(was, now)


def test_logits_and_bias_are_found_by_layer_and_training_step(saved, recording):
    back = read_recording(saved)
    np.testing.assert_array_equal(back.logits(3), recording.last_logits[3])
    np.testing.assert_array_equal(back.logits(1, 100), recording.last_logits[1])
    np.testing.assert_array_equal(back.logits(3, 10), recording.early_logits[1, 1])
    np.testing.assert_array_equal(back.bias(1), recording.biases[2, 0])
    np.testing.assert_array_equal(back.bias(3, 0), recording.biases[0, 1])
    assert back.router["top_k"] == TOP_K


def test_a_layer_or_step_that_was_not_recorded_is_refused_with_those_that_were(recording):
    with pytest.raises(InputError, match="no MoE layer 2; recorded are 1, 3"):
        recording.logits(2)
    with pytest.raises(InputError, match="training step 11; recorded are 0, 10, 100 or last"):
        recording.bias(1, 11)


def test_the_same_recording_gives_the_same_bytes(tmp_path, saved, recording):
    write_recording(tmp_path / "again.npz", recording)
    assert (tmp_path / "again.npz").read_bytes() == saved.read_bytes()


def test_members_may_grow_beyond_two_gigabytes(saved):
    with zipfile.ZipFile(saved) as archive, saved.open("rb") as file:
        for info in archive.infolist():
            file.seek(info.header_offset + 26)
            name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
            file.seek(name_bytes, os.SEEK_CUR)
            assert extra_bytes >= 20 and file.read(2) == b"\x01\x00"  # zip64 from the first byte on


def test_a_file_unpacks_to_so_many_bytes_and_not_one_more(saved, monkeypatch):
    with zipfile.ZipFile(saved) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    monkeypatch.setattr("moesim.numpy_file.MAX_RATIO", 0)
    monkeypatch.setattr("moesim.numpy_file.LARGE_RATIO", 0)
    monkeypatch.setattr("moesim.numpy_file.LARGE_BYTES", unpacked)
    assert read_recording(saved).name == "made-up"
    monkeypatch.setattr("moesim.numpy_file.LARGE_BYTES", unpacked - 1)
    assert f"would unpack to {unpacked}" in refusal(saved)


def test_a_recording_that_is_not_sound_leaves_the_old_file_alone(saved, recording):
    before = saved.read_bytes()
    with pytest.raises(InputError, match="losses holds NaN"):
        write_recording(saved, replace(recording, losses=np.full_like(recording.losses, np.nan)))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_recording_that_cannot_be_written_is_a_matter_of_the_machine(tmp_path, recording):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        write_recording(tmp_path / "file" / "a.npz", recording)


def test_a_misspelt_name_is_answered_with_the_closest(monkeypatch, tmp_path, recording):
    monkeypatch.setattr("moesim.recording_format.recordings_directory", lambda: tmp_path)
    write_recording(tmp_path / "tiny-v3.npz", recording)
    assert read_recording("tiny-v3").name == "made-up"
    with pytest.raises(InputError, match="no recording named 'tinyv3'; did you mean tiny-v3"):
        read_recording("tinyv3")
    with pytest.raises(InputError, match="shipped are tiny-v3"):
        read_recording("mixtral")


def test_a_missing_file_is_refused(tmp_path):
    assert "no such recording file" in refusal(tmp_path / "absent.npz")


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "notes.npz"
    path.write_text("not a zip archive")
    assert "not a readable .npz file" in refusal(path)


def test_a_truncated_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-3_000])
    assert "not a readable .npz file" in refusal(saved)


def test_a_foreign_npz_is_refused_as_such(tmp_path):
    path = tmp_path / "foreign.npz"
    np.savez(path, weights=np.ones(3))
    assert "not a recording" in refusal(path)


def test_a_pickled_member_is_never_loaded(saved):
    arrays = members(saved) | {"losses": np.array([{"code": "runs"}], dtype=object)}
    np.savez_compressed(saved, allow_pickle=True, **arrays)
    assert "member 'losses' holds Python objects" in refusal(saved)


def test_a_member_that_is_no_array_is_refused(saved):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("README.txt", "hello")
    assert "unexpected member 'README.txt'" in refusal(saved)


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused_before_allocation(saved):
    rewrite(saved, losses=np.zeros(40_000_000, np.uint8))
    assert "more than 200:1" in refusal(saved)


def test_a_member_compressed_beyond_reason_is_refused(saved):
    rng = np.random.default_rng(0)
    rewrite(saved, losses=np.zeros(20_000_000, np.uint8), more=rng.integers(0, 256, 1_000_000, dtype=np.uint8))
    assert "'losses' is compressed more than 200:1" in refusal(saved)


def test_more_than_a_thousand_members_are_refused(tmp_path):
    path = tmp_path / "many.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(1_001):
            archive.writestr(f"{number}.npy", "")
    assert "1001 members" in refusal(path)


def test_a_header_that_announces_more_than_the_member_holds_is_refused(saved):
    arrays = members(saved)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 8, 8)})
    with zipfile.ZipFile(saved, "w") as archive:
        for name, array in arrays.items():
            if name == "losses":
                archive.writestr("losses.npy", header.getvalue())
            else:
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, array)
    assert "'losses' announces" in refusal(saved)


def test_an_encrypted_member_is_refused(saved):
    data = bytearray(saved.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flag in the last central directory entry
    saved.write_bytes(data)
    assert "not a readable .npz file" in refusal(saved)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (np.zeros((2, 2), np.uint8), "not uint8"),
        (np.frombuffer(b"{", np.uint8), "not JSON"),
        (np.frombuffer(b"\xff\xfe", np.uint8), "not JSON"),
        (np.frombuffer(b"[1]", np.uint8), "not a JSON object"),
        (np.frombuffer(b'{"schema_version": 1}', np.uint8), "meta lacks name, router"),
    ],
)
def test_a_meta_member_that_cannot_be_understood_is_refused(saved, meta, message):
    rewrite(saved, meta=meta)
    assert message in refusal(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 7}, "schema version 7; this moesim reads version 1"),
        ({"router": {"kind": "v1"}}, "'router' must name kind, score"),
        ({"n_experts": 0}, "'n_experts' is 0"),
        ({"n_experts": True}, "'n_experts' is True"),
        ({"domains": ["code", "code", "tables"]}, "'domains' is not a list of different names"),
        ({"domains": "code"}, "'domains' is not a list of different names"),
        ({"held_out": ["poems"]}, "'held_out' names a domain"),
        ({"moe_layers": [3, 1]}, "not ascending"),
        ({"moe_layers": []}, "not a list of layer numbers"),
        ({"moe_layers": [1, 2]}, "no member 'logits_2', unknown member 'logits_3'"),
        ({"n_experts": 32}, "early_logits has shape (2, 2, 32, 16), not (2, 2, 32, 32)"),
        ({"text_sha256": "0" * 64}, "token_bytes are not the text"),
    ],
)
def test_meta_data_that_contradict_the_arrays_are_refused(saved, change, message):
    rewrite(saved, meta=with_meta(saved, **change))
    assert message in refusal(saved)


def test_a_router_that_selects_no_expert_is_refused(saved, recording):
    rewrite(saved, meta=with_meta(saved, router=recording.router | {"top_k": 0}))
    assert "'router.top_k' is 0" in refusal(saved)


def changed(name, index, value):
    def change(path):
        array = members(path)[name].copy()
        array[index] = value
        rewrite(path, **{name: array})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("logits_3", (5, 2), np.nan), "layer 3, token 5: a logit is NaN"),
        (changed("logits_1", (63, 0), np.inf), "layer 1, token 63: a logit is NaN or infinite"),
        (changed("early_logits", (1, 1, 7, 0), np.nan), "layer 3, step 10, token 7"),
        (changed("bias", (0, 0, 0), np.nan), "bias holds NaN"),
        (changed("steps", 1, 100), "steps do not increase"),
        (changed("sequence", 40, 0), "sequence ids decrease"),
        (changed("domain", 0, 3), "outside 0..2"),
        (changed("domain", 0, -1), "outside 0..2"),
        (changed("counts", (0, 0, 0), 7_000), "counts are not the sum"),
        (changed("token_bytes", 0, 0), "token_bytes are not the text"),
    ],
)
def test_a_wrong_value_is_named(saved, change, message):
    change(saved)
    assert message in refusal(saved)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("losses", None, "no member 'losses'"),
        ("extra", np.ones(2), "unknown member 'extra'"),
        ("sequence", np.zeros(96, np.int64), "sequence is int64"),
        ("counts", np.zeros((3, 2), np.int64), "counts is int64[2 axes], not int64[3 axes]"),
        ("logits_3", np.zeros((95, EXPERTS), np.float16), "no layer has the logits of all 96 tokens"),
        ("logits_1", np.zeros((0, EXPERTS), np.float16), "a layer without logits"),
        ("logits_1", np.zeros((64, 8), np.float16), "logits_1 has shape (64, 8), not (64, 16)"),
        ("sequence_imbalance", np.ones((3, 2, 5)), "sequence_imbalance has shape"),
    ],
)
def test_a_missing_or_misshapen_member_is_named(saved, name, array, message):
    rewrite(saved, **{name: array})
    assert message in refusal(saved)


def test_no_damage_to_a_file_raises_anything_but_an_input_error(saved):
    rng = np.random.default_rng(3)
    sound = saved.read_bytes()
    refused = 0
    for _ in range(250):
        data = bytearray(sound)
        for position in rng.integers(len(data), size=rng.integers(1, 4)):
            data[position] ^= 1 << rng.integers(8)
        # The directory at the end steers the reading, so that half of the damage is done there.
        if rng.random() < 0.5:
            data[len(data) - rng.integers(1, 1_000)] = rng.integers(256)
        saved.write_bytes(data if rng.random() < 0.8 else data[: rng.integers(len(data))])
        try:
            read_recording(saved)
        except InputError:
            refused += 1
    assert refused > 200


def test_a_plain_array_of_logits_is_not_taken_for_a_recording(tmp_path, saved):
    np.savez(tmp_path / "plain.npz", logits=np.ones((2, 3)))
    assert not is_recording(tmp_path / "plain.npz")
    assert is_recording(saved)


def shipped():
    return sorted(path.stem for path in Path(recordings_directory()).glob("*.npz"))


@pytest.mark.parametrize("name", ["tiny-none", "tiny-v1", "tiny-v2", "tiny-v3"])
def test_a_shipped_recording_is_sound(name):
    recording = read_recording(name)
    assert recording.name == name
    assert recording.n_experts == 64
    assert recording.layers == (1, 2, 3)
    assert recording.router["top_k"] == 8
    assert [len(recording.logits(layer)) for layer in recording.layers] == [4_096, 16_384, 4_096]
    assert len(recording.logits(2, int(recording.steps[0]))) == 1_024
    selections = recording.meta["counts_tokens"] * recording.router["top_k"]
    assert (recording.counts.sum(axis=2) == selections).all()


def test_shipped_recordings_are_of_one_text_whose_beginning_holds_all_domains_evenly():
    recordings = [read_recording(name) for name in shipped()]
    assert len({recording.meta["text_sha256"] for recording in recordings}) == 1
    assert len({recording.meta["training"]["steps"] for recording in recordings}) == 1
    for recording in recordings:
        assert set(np.bincount(recording.domain[:4_096])) == {1_024}
        assert (np.bincount(recording.sequence) == 256).all()


def test_shipped_recordings_fit_into_the_repository():
    assert sum(path.stat().st_size for path in recordings_directory().glob("*.npz")) <= 20_000_000


def test_balancing_shows_in_the_shipped_recordings():
    skew = {}
    for name in shipped():
        load = read_recording(name).counts[-1]
        skew[name] = load.max(axis=1) / load.mean(axis=1)
    assert (skew["tiny-none"] > 2.5).all()
    assert (skew["tiny-v3"] < 2).all()
    assert (skew["tiny-v3"] < skew["tiny-none"] / 2).all()
