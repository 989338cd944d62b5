"""A result's folder: whole or not at all, the same bytes for the same scenario, and read back with nothing trusted."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import moesim
from moesim.errors import InputError, ResourceError
from moesim.results import SCHEMA_VERSION, Note
from tests.run.small import recorded, run, run_ids, scenario, small_recording

LAYERS = "workload.layers_simulated=2"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "run"
    run(LAYERS).save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


def digests(folder, but=("provenance.json",)):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but
    }


def assert_same(one, other):
    assert one.summary == other.summary and one.notes == other.notes and one.explanation == other.explanation
    assert one.provenance == other.provenance and one.scenario_yaml == other.scenario_yaml
    assert set(one.tables) == set(other.tables)
    for name in one.tables:
        pd.testing.assert_frame_equal(one.tables[name], other.tables[name])
    for mine, its in ((one.flows, other.flows), (one.traffic, other.traffic)):
        assert set(mine) == set(its)
        for name in mine:
            np.testing.assert_array_equal(mine[name], its[name])


# ---- round trips ----


def test_what_is_saved_is_what_is_loaded(saved):
    assert_same(moesim.load_result(saved), run(LAYERS))
    waited_on = moesim.load_result(saved).tables["spans"].waited_on
    assert waited_on.isna().any() and waited_on.dtype == "Int32"


def test_a_result_without_gates_or_wires_survives_the_round_trip(tmp_path):
    alone = run("parallel.ep=1", "routing.groups=1", "routing.top_groups=1")
    alone.save(tmp_path / "alone")
    assert_same(moesim.load_result(tmp_path / "alone"), alone)
    given = run_ids(tmp_path, np.array([[0, 1], [2, 3]]), [2, *[0] * 7])
    given.save(tmp_path / "given")
    assert_same(moesim.load_result(tmp_path / "given"), given)
    assert moesim.load_result(tmp_path / "given").tables["experts"].gate_mass.isna().all()


def test_a_training_history_survives_the_round_trip(tmp_path):
    result = moesim.simulate(recorded(small_recording(tmp_path / "made-up.npz")))
    result.save(tmp_path / "run")
    assert_same(moesim.load_result(tmp_path / "run"), result)


def test_equal_runs_give_equal_bytes_but_for_their_provenance(saved, tmp_path):
    moesim.simulate(scenario(LAYERS)).save(tmp_path / "again")
    assert digests(tmp_path / "again") == digests(saved)
    assert set(json.loads((saved / "provenance.json").read_text())["provenance"]) >= {"moesim", "utc", "wall_s"}


def test_every_file_carries_the_schema_version(saved):
    for path in saved.glob("*.json"):
        assert json.loads(path.read_text())["schema"] == SCHEMA_VERSION
    for path in saved.glob("*.npz"):
        with np.load(path, allow_pickle=False) as archive:
            assert str(archive["moesim_schema"]) == SCHEMA_VERSION
    pq = pytest.importorskip("pyarrow.parquet")
    for path in saved.glob("*.parquet"):
        assert pq.read_schema(path).metadata[b"moesim_schema"] == SCHEMA_VERSION.encode()


def test_extra_files_land_in_the_folder(tmp_path):
    run(LAYERS).save(tmp_path / "run", {"report.html": b"<p>", "figures/load.svg": b"<svg/>"})
    assert (tmp_path / "run/figures/load.svg").read_bytes() == b"<svg/>"


# ---- the place ----


def test_an_older_result_is_replaced_and_nothing_of_it_is_left(tmp_path):
    run(LAYERS).save(tmp_path / "run", {"report.html": b"old"})
    run().save(tmp_path / "run")
    assert not (tmp_path / "run/report.html").exists()
    assert moesim.load_result(tmp_path / "run").summary == run().summary
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_empty_folder_is_taken_and_missing_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "a/b/c"):
        run().save(place)
        assert moesim.load_result(place).summary == run().summary


def test_what_is_not_a_result_is_never_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("something")
    for place in (tmp_path / "thesis", tmp_path / "file"):
        with pytest.raises(ResourceError, match="not a result"):
            run().save(place)
    assert (tmp_path / "thesis/chapter.tex").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "thesis"]


WRITERS = ("numpy.savez_compressed", "os.fsync", "os.replace")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_write_that_fails_leaves_the_old_result_and_nothing_else(tmp_path, monkeypatch, writer, code):
    run().save(tmp_path / "run")
    before = digests(tmp_path, but=())

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(writer, fail)
        with pytest.raises(ResourceError, match=os.strerror(code)):
            run(LAYERS).save(tmp_path / "run")
        with pytest.raises(ResourceError, match=os.strerror(code)):
            run(LAYERS).save(tmp_path / "new")
    assert digests(tmp_path, but=()) == before and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_old_result_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    run().save(tmp_path / "run")
    before, calls, replace = digests(tmp_path, but=()), [], os.replace

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", second_fails)
        with pytest.raises(ResourceError, match="broken"):
            run(LAYERS).save(tmp_path / "run")
    assert len(calls) == 3 and digests(tmp_path, but=()) == before


def test_a_parquet_write_that_fails_is_a_resource_error(tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(pq, "write_table", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(ResourceError, match="full"):
        run().save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


# ---- reading back ----


def refused(folder, *said):
    with pytest.raises(InputError) as caught:
        moesim.load_result(folder)
    line = str(caught.value)
    assert "\n" not in line and len(line) <= 500 and str(folder) in line
    for word in said:
        assert word in line
    return line


def test_a_folder_without_a_summary_is_no_result(tmp_path):
    refused(tmp_path, "not a result folder")
    refused(tmp_path / "absent", "not a result folder")


JSONS = ("summary.json", "notes.json", "explanation.json", "provenance.json")


@pytest.mark.parametrize("name", JSONS)
def test_another_schema_version_of_a_json_file_is_refused(copy, name):
    content = json.loads((copy / name).read_text())
    for version in ("99", None, 2):
        (copy / name).write_text(json.dumps({**content, "schema": version}))
        refused(copy, name, "schema version")


def test_another_schema_version_of_a_table_or_an_array_file_is_refused(copy):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(copy / "links.parquet")
    for metadata in ({"moesim_schema": "99"}, {}):
        pq.write_table(table.replace_schema_metadata(metadata), copy / "links.parquet")
        refused(copy, "links.parquet", "schema version")
    pq.write_table(pa.table(table).replace_schema_metadata({"moesim_schema": SCHEMA_VERSION}), copy / "links.parquet")
    moesim.load_result(copy)
    for arrays in ({"moesim_schema": np.array("99")}, {"size": np.zeros(2)}):
        np.savez_compressed(copy / "flows.npz", allow_pickle=False, **arrays)
        refused(copy, "flows.npz", "schema version")


@pytest.mark.parametrize("name", [*JSONS, "links.parquet", "spans.parquet", "flows.npz", "traffic.npz"])
def test_a_file_cut_short_anywhere_is_refused_in_one_line(copy, name):
    whole = (copy / name).read_bytes()
    for length in sorted({0, 1, 3, len(whole) // 4, len(whole) // 2, len(whole) - 9, len(whole) - 3}):
        (copy / name).write_bytes(whole[:length])
        refused(copy, name)


@pytest.mark.parametrize("name", ["summary.json", "links.parquet", "flows.npz", "traffic.npz"])
def test_a_file_of_another_kind_is_refused_in_one_line(copy, name):
    for content in (b"PK\x03\x04 no archive", b"\xff\xfe\x00", b"[" * 100_000, b"[]", b"{}", b"null", b"PAR1PAR1"):
        (copy / name).write_bytes(content)
        refused(copy, name)


def test_a_file_with_bytes_changed_is_refused_or_read_but_never_a_crash(copy):
    rng = np.random.default_rng(0)
    for name in ("flows.npz", "links.parquet", "summary.json", "notes.json"):
        whole = bytearray((copy / name).read_bytes())
        for _ in range(40):
            broken = bytearray(whole)
            for place in rng.integers(0, len(whole), 3):
                broken[place] = rng.integers(0, 256)
            (copy / name).write_bytes(bytes(broken))
            try:
                moesim.load_result(copy)
            except InputError as error:
                assert "\n" not in str(error)
        (copy / name).write_bytes(bytes(whole))


@pytest.mark.parametrize(
    "name", ["links.parquet", "link_series.parquet", "scenario.resolved.yaml", "notes.json", "flows.npz"]
)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    refused(copy, name.removesuffix(".parquet"))


def test_a_summary_without_one_of_its_numbers_is_refused(copy):
    content = json.loads((copy / "summary.json").read_text())
    del content["summary"]["layer_time_s"]
    (copy / "summary.json").write_text(json.dumps(content))
    refused(copy, "layer_time_s")


def test_notes_without_text_are_refused(copy):
    for notes in ({}, [1], [{"kind": "info"}]):
        (copy / "notes.json").write_text(json.dumps({"schema": SCHEMA_VERSION, "notes": notes}))
        refused(copy, "notes.json")


def test_pickled_arrays_are_never_opened(copy):
    np.savez(copy / "flows.npz", moesim_schema=np.array(SCHEMA_VERSION), size=np.array([print], object))
    refused(copy, "flows.npz")


def test_notes_are_kept_in_their_order():
    assert run(LAYERS).notes[0] != run(LAYERS).notes[1]
    assert Note("info", "a") == Note("info", "a")


def test_a_result_is_made_from_nothing_but_its_folder(saved, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(saved, moved)
    assert_same(moesim.load_result(Path(moved)), run(LAYERS))


def test_tables_and_arrays_are_read_when_they_are_asked_for(copy):
    for name in ("links.parquet", "flows.npz"):
        (copy / name).write_bytes(b"damaged")
    result = moesim.load_result(copy, at_once=False)
    assert result.summary == run(LAYERS).summary and set(result.traffic) == set(run(LAYERS).traffic)
    for ask in (lambda: result.tables["links"], lambda: result.flows["size"]):
        with pytest.raises(InputError):
            ask()
