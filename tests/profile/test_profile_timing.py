"""The timer of a GPU on a clock that is only counted: no GPU needed, nothing measured."""

import contextlib

import numpy as np
import pytest

pytest.importorskip("torch")

from moesim.profile.timing import ClockTimer, CudaTimer, Samples, sets_needed

pytestmark = pytest.mark.lab


class Device:
    """What the timer uses of ``torch.cuda``, on a clock in microseconds that only `work` and `flush` move."""

    def __init__(self, may_capture=True):
        self.now, self.may_capture, self.capturing = 0.0, may_capture, None
        self.graphs, self.log = [], []

    def work(self, name, us):
        if self.capturing is not None:
            if not self.may_capture:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.capturing.append((name, us))
        else:
            self.log.append(name)
            self.now += us

    def Event(self, enable_timing):
        assert enable_timing
        return Event(self)

    def CUDAGraph(self):
        self.graphs.append(Graph(self))
        return self.graphs[-1]

    def Stream(self):
        return object()

    def stream(self, stream):
        return contextlib.nullcontext()

    def synchronize(self):
        assert self.capturing is None


class Event:
    def __init__(self, device):
        self.device = device

    def record(self):
        self.at = self.device.now

    def elapsed_time(self, end):
        return (end.at - self.at) / 1e3


class Graph:
    def __init__(self, device):
        self.device, self.calls = device, None

    def capture_begin(self):
        self.device.capturing = []

    def capture_end(self):
        self.calls, self.device.capturing = self.device.capturing, None

    def replay(self):
        for name, us in self.calls:
            self.device.work(name, us)


def timed(device, us, sets=4, **options):
    timer = CudaTimer(1000, cuda=device, flush=lambda: device.work("flush", 1000.0))
    return timer.measure(lambda name: device.work(name, us), [(number,) for number in range(sets)], **options)


def test_a_short_call_is_timed_in_a_chain_of_twenty():
    device = Device()
    samples = timed(device, 10.0, cold=False)
    assert samples.timer == "graph"
    assert samples.us == pytest.approx([10.0] * 50)
    assert len(device.graphs[0].calls) == 20
    assert set(device.log) == {0}


def test_cold_calls_take_turns_over_all_input_sets():
    device = Device()
    timed(device, 10.0, sets=33, cold=True)
    assert [name for name, _ in device.graphs[0].calls] == list(range(33))


def test_the_chain_gets_shorter_as_calls_get_longer():
    device = Device()
    samples = timed(device, 400.0, sets=1, cold=True)
    assert len(device.graphs[0].calls) == 2
    assert samples.us == pytest.approx([400.0] * 37)  # 30 ms of replays of 800 us


def test_where_sets_do_not_fill_the_cache_it_is_flushed_before_every_call_and_the_flush_is_not_counted():
    device = Device()
    samples = timed(device, 3.0, cold=True, filled=False)
    assert samples.timer == "events"
    assert samples.us == pytest.approx([3.0] * 50)
    assert device.log[-100:] == ["flush", 0] * 50


def test_a_long_call_is_timed_by_itself():
    device = Device()
    samples = timed(device, 20_000.0, sets=2, cold=True)
    assert (samples.timer, samples.us) == ("events", pytest.approx([20_000.0] * 7))
    assert device.graphs == []
    assert device.log[-7:] == [0, 1, 0, 1, 0, 1, 0]
    assert "flush" not in device.log


def test_what_cannot_be_captured_is_timed_by_itself():
    device = Device(may_capture=False)
    samples = timed(device, 10.0, cold=False)
    assert (samples.timer, samples.us) == ("events", pytest.approx([10.0] * 50))


def test_launches_are_never_hidden_in_a_graph():
    device = Device()
    assert timed(device, 10.0, cold=False, chained=False).timer == "events"
    assert device.graphs == []


def test_the_clock_takes_turns_when_cold_and_repeats_when_hot(monkeypatch):
    monkeypatch.setattr("moesim.profile.timing.CPU_SECONDS", 0.0)
    seen = []
    for cold in (True, False):
        samples = ClockTimer().measure(seen.append, [(0,), (1,), (2,)], cold)
        assert (len(samples.us), samples.timer) == (7, "clock")
    assert seen == [0, 0, 0, 1, 2, 0, 1, 2, 0] + [0] * 9


def test_percentiles_are_numpys():
    us = np.random.default_rng(0).gamma(2.0, size=37)
    assert Samples(us.tolist(), "graph").percentiles() == pytest.approx(np.percentile(us, [20, 50, 80]))


def test_sets_fill_the_cache_four_times_over():
    assert [sets_needed(moved, 1000) for moved in (10, 999, 1000, 4000, 1e9)] == [400, 5, 4, 1, 1]
