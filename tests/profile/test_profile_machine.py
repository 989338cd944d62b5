# ruff: noqa: E402
"""The identity of a GPU and its readings, with a GPU and an nvidia-smi that are made up."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from moesim.errors import InputError
from moesim.profile.machine import Machine

pytestmark = pytest.mark.lab

ANSWERS = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
  *driver_version*) echo 580.65.06 ;;
  *clocks.sm*) {reading} ;;
esac
"""


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Makes a Machine whose nvidia-smi runs a line of shell; gives it and the list of what was asked."""
    properties = SimpleNamespace(
        name="NVIDIA H100 80GB HBM3", uuid="0123-4567", major=9, minor=0, multi_processor_count=132,
        L2_cache_size=52_428_800, total_memory=80 << 30,
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr("moesim.profile.machine.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(reading):
        log, tool = tmp_path / "log", tmp_path / "nvidia-smi"
        tool.write_text(ANSWERS.format(log=log, reading=reading))
        tool.chmod(0o755)
        return Machine("cuda"), lambda: log.read_text().splitlines()

    return make


def test_a_gpu_is_told_apart_without_giving_its_serial_number_away(gpu):
    machine, asked = gpu("true")
    identity = machine.identity
    assert (identity["device"], identity["driver"], identity["triton"]) == ("NVIDIA H100 80GB HBM3", "580.65.06", None)
    assert identity["torch"] == str(torch.__version__)
    assert len(identity["uuid_sha256"]) == 16
    assert "0123" not in str((identity, machine.facts))
    assert (machine.facts["sms"], machine.cache_bytes) == (132, 52_428_800)
    assert "--id=GPU-0123-4567" in asked()[0]


def test_readings_are_numbers_or_null(gpu):
    machine, _ = gpu("echo '1980, 2619, [N/A], 34'")
    assert machine.reading() == {"sm_mhz": 1980.0, "memory_mhz": 2619.0, "power_w": None, "temperature_c": 34.0}


@pytest.mark.parametrize("reading", ["exit 9", "kill -9 $$"])
def test_a_tool_that_fails_is_not_asked_again(gpu, reading):
    machine, asked = gpu(reading)
    assert machine.reading() is None
    assert machine.reading() is None
    assert len(asked()) == 2  # the driver, and once in vain


def test_an_answer_of_another_shape_is_no_reading(gpu):
    assert gpu("echo '1980, 2619'")[0].reading() is None


def test_a_device_that_does_not_answer_any_more_is_known(gpu, monkeypatch):
    machine, _ = gpu("true")

    def lost():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert not machine.context_works()
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert machine.context_works()


def test_the_cpu_has_a_name_and_no_readings():
    machine = Machine("cpu")
    assert machine.name
    assert machine.reading() is None
    assert machine.context_works()


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device here; cpu always works"):
        Machine("cuda")
    with pytest.raises(InputError, match="no device 'tpu'; devices are cpu, cuda"):
        Machine("tpu")
