"""The shipped sets of constants, each fitted again to the ledger's rows of its source."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from moesim.traffic import CalibrationSet, find_set, value_at, with_value
from moesim.validate.benches import bench_of, is_transfer
from moesim.validate.error_spread import Spread
from moesim.validate.fit_constants import Free, fit
from moesim.validate.ledger import FIT, Entry
from moesim.validate.published_row import Row
from moesim.validate.refit import Refit, signed
from moesim.validate.row_simulation import constants_from, simulate_row
from refit.free_constants import BASE, FREE


def refit_published(
    rows: Iterable[Row],
    ledger: Mapping[tuple[str, str], Entry],
    wanted: Callable[[str], bool],
) -> Iterator[Refit]:
    """Fit the shipped sets to the rows that the ledger allows, each starting from its current constants.

    Args:
        rows: published rows.
        ledger: entries by table and key.
        wanted: which sets, by name.

    Yields:
        The sets, those that others build on before them.
    """
    of_set: dict[str, list[Row]] = {}
    held_out: dict[str, list[Row]] = {}
    for row in filter(is_transfer, rows):
        entry = ledger[row.name]
        # A twin has the same bytes as a row that is here already, in the fit it would count twice.
        if entry.role == FIT and not entry.rule:
            of_set.setdefault(bench_of(row).calibration, []).append(row)
        elif entry.role != FIT and not entry.suspect:
            held_out.setdefault(bench_of(row).calibration, []).append(row)
    done: dict[str, CalibrationSet] = {}
    for name in FREE:
        if name not in of_set or not wanted(name):
            continue
        first = of_set[name][0]
        start = find_set(bench_of(first).algorithm, first.gpu, name)
        if name in BASE:
            base = done.get(BASE[name]) or find_set(start.algorithm, first.gpu, BASE[name])
            start = _on_base(start, base, FREE[name])
        found = fit(start, FREE[name], of_set[name], simulate_row, constants_from)
        made = signed(found, of_set[name])
        done[name] = replace(made, held_out=_held_out(made, held_out.get(name, [])))
        yield Refit(done[name], of_set[name], found)


def _on_base(start: CalibrationSet, base: CalibrationSet, free: Sequence[Free]) -> CalibrationSet:
    """The base's constants, but for those that are the set's own."""
    made = replace(start, phases=base.phases, across=base.across)
    for one in free:
        for place in one.places:
            made = with_value(made, place, value_at(start, place))
    return made


def _held_out(found: CalibrationSet, rows: Sequence[Row]) -> dict[str, float]:
    """How far the set is off on rows that it was not fitted on, as validate counts it; empty without rows."""
    if not rows:
        return {}
    off = Spread.of_errors([simulate_row(row, constants_from(found, row)) / row.published - 1 for row in rows])
    return {"rows": off.rows} | off.figures()
