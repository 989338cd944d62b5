"""Events per second of SimPy alone, the clock under everything: ``python -m benchmarks.simpy_rate``.

The reason why the network keeps one pending event for all its flows: with a timeout for each, the clock alone would
take longer than the solve.
"""

from __future__ import annotations

from collections.abc import Generator

import simpy

from benchmarks.machine import Row, machine, median_cpu, write

EVENTS = 600_000


def ticks(n_processes: int, n_events: int) -> None:
    """Let processes wait again and again: ``n_events`` timeouts in all, one per process pending."""

    def process(env: simpy.Environment, number: int) -> Generator[simpy.Event, None, None]:
        for _ in range(n_events // n_processes):
            yield env.timeout(1.0 + number / n_processes)

    env = simpy.Environment()
    for number in range(n_processes):
        env.process(process(env, number))
    env.run()


def main() -> None:
    rows = []
    for pending in (1, 1_000, 300_000):
        seconds = median_cpu(lambda pending=pending: ticks(pending, EVENTS), 3)
        rows.append(Row(f"SimPy timeouts, {pending:,} pending", EVENTS, seconds))
    write("simpy_rate", rows, machine())


if __name__ == "__main__":
    main()
