"""What a user's rows said of the constants, and what they leave open: found from how rows answer to each constant.

A constant that no row answers to stays where it was. Two constants that rows answer to alike are not told apart: only
the spread of each (``prior``) says which moved. Of both kinds of gap the row is named that would close it: of a few
settings next to those measured, the one that answers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from moesim.traffic import CalibrationSet, Place, most_of, value_at
from moesim.validate.benchmark_routing import MOST_TOKENS
from moesim.validate.clusters import OnRanks
from moesim.validate.fit_constants import Fitted, Floats, Free
from moesim.validate.published_row import Row, phase_of
from moesim.validate.row_simulation import constants_from, simulated_seconds
from moesim.validate.set_file import quantity

_MOVED = 0.002
# How far a constant might be off if nothing held it: a factor of e, or some spreads of one that is no factor.
_UNHELD, _UNHELD_SPREADS = 1.0, 5.0
# Told apart is what is known within this, told at all what would be known as well if it stood alone.
_KNOWN, _ALONE = 0.25, 0.1
# Of finite differences: so long that what is nearly the longest shows too.
_STEP = 0.1
# Sizes of a row that might tell more, beside its own.
_OTHER_SIZES = (16, 1 / 16)
_NAMES = {"nic": "NIC", "nvlink": "NVLink", "setup": "set-up", "work": "SM work", "fill": "fill", "host": "host"}


@dataclass(frozen=True)
class Moved:
    """A constant that a fit moved, with its unit; ``of`` names the phases, kernels or protocols that share it."""

    constant: str
    of: str
    before: str
    after: str


def moved(before: CalibrationSet, after: CalibrationSet, free: Iterable[Free]) -> list[Moved]:
    """List what moved by more than a fifth of a per cent.

    Args:
        before: the set that the user began with.
        after: the fitted one.
        free: what could move.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for place in (place for one in free for place in one.places):
        was, now = value_at(before, place), value_at(after, place)
        if abs(now - was) > _MOVED * abs(was):
            name = place[-1].removesuffix("_s")
            key = name, quantity(place[-1], was) if was else "-", quantity(place[-1], now)
            found.setdefault(key, []).append(_owner(place))
    return [Moved(name, ", ".join(dict.fromkeys(of)), was, now) for (name, was, now), of in found.items()]


def left_open(
    fitted: Fitted, free: Sequence[Free], rows: Sequence[Row], row_spread: float, on: OnRanks | None = None
) -> list[str]:
    """List what rows leave open.

    Args:
        fitted: a fit to them.
        free: its constants.
        rows: measured.
        row_spread: relative error that a row commonly keeps.
        on: the user's cluster by its first ranks.
    """
    said = list(_at_their_peak(fitted.constants, free))
    phases = {phase_of(row) for row in rows}
    if len(phases) == 1 and rows[0].op != "alltoall":
        said.append(f"{'combine' if phases == {'dispatch'} else 'dispatch'} was not measured")
    menu = [(row, slopes_of(fitted.constants, free, row, on)) for row in _next_to(rows) if _can_run(row, on)]
    said += _unfelt(fitted, free, menu, row_spread)
    said += _alike(fitted, free, menu, row_spread)
    ranks = {row.ranks for row in rows}
    if len(ranks) == 1:
        said.append(f"only {rows[0].ranks} ranks were measured: how times grow with ranks and nodes is as it was")
    return said


def _at_their_peak(found: CalibrationSet, free: Sequence[Free]) -> Iterator[str]:
    for one in free:
        most = most_of(found, one.places[0])
        if value_at(found, one.places[0]) > (1 - _MOVED) * most:
            option = "--nic-bandwidth" if one.kind == "nic" else "--nvlink-bandwidth"
            yield f"{_name(one)} is at its port's peak, {quantity('rate', most)}: if yours is faster, give {option}"


def _unfelt(fitted: Fitted, free: Sequence[Free], menu: Sequence[tuple[Row, Floats]], row_spread: float) -> list[str]:
    """Constants that no row answers to, by the row that would, that which tells most first."""
    enough = row_spread / _UNHELD
    rest = {
        index
        for index in range(len(free))
        if float(np.linalg.norm(fitted.slopes[:, index])) * _unheld(free[index]) < 2 * enough
    }
    said = []
    while rest and menu:
        told = [{index for index in rest if abs(slopes[index]) * _unheld(free[index]) > 0.25} for _, slopes in menu]
        best = max(range(len(menu)), key=lambda number: len(told[number]))
        if not told[best]:
            break
        names = ", ".join(dict.fromkeys(_name(free[index]) for index in sorted(told[best])))
        said.append(f"no row answers to {names}: as it was; {_words(menu[best][0])} would tell")
        rest -= told[best]
    return said


def _alike(fitted: Fitted, free: Sequence[Free], menu: Sequence[tuple[Row, Floats]], row_spread: float) -> list[str]:
    """Pairs of constants of two kinds that rows answer to alike, the most alike of each two kinds."""
    slopes = fitted.slopes / row_spread
    found: dict[tuple[str, str], tuple[float, str]] = {}
    for pair in combinations(range(len(free)), 2):
        one, other = (free[index] for index in pair)
        two = slopes[:, pair]
        known = two.T @ two + np.diag([_unheld(one) ** -2, _unheld(other) ** -2])
        covariance = np.linalg.inv(known)
        unknown = np.sqrt(np.diag(covariance)) / [_unheld(one), _unheld(other)]
        alone = np.diag(known) ** -0.5 / [_unheld(one), _unheld(other)]
        kinds = (one.kind, other.kind)
        if one.kind == other.kind or unknown.min() < _KNOWN or alone.max() > _ALONE:
            continue
        said = f"{_name(one)} and {_name(other)} are not told apart: {_NAMES[_first(one, other)]} moves first"
        # What is left of the first one's variance after one more row.
        answers = [(row, covariance @ at[list(pair)]) for row, at in menu]
        gains = [
            float(both[0] ** 2 / (row_spread**2 + at[list(pair)] @ both))
            for (_, both), (_, at) in zip(answers, menu, strict=True)
        ]
        best = int(np.argmax(gains)) if gains else -1
        if gains and gains[best] > 0.5 * covariance[0, 0]:
            said += f"; {_words(menu[best][0])} would tell"
        found[kinds] = max(found.get(kinds, (0.0, "")), (float(unknown.min()), said))
    return [said for _, said in found.values()]


def _first(one: Free, other: Free) -> str:
    return one.kind if one.spread / _unheld(one) >= other.spread / _unheld(other) else other.kind


def _unheld(one: Free) -> float:
    return _UNHELD_SPREADS * one.spread if one.unit or one.slope else _UNHELD


def slopes_of(found: CalibrationSet, free: Sequence[Free], row: Row, on: OnRanks | None) -> Floats:
    """How a row answers to each constant, when that makes it slower."""

    def log_time(made: CalibrationSet) -> float:
        return float(np.log(simulated_seconds(row, constants_from(made, row), on)))

    here = log_time(found)
    steps = [_STEP * one.slower * (one.spread if one.unit else 1.0) for one in free]
    return np.array([(log_time(one.moved(found, step)) - here) / step for one, step in zip(free, steps, strict=True)])


def _next_to(rows: Sequence[Row]) -> list[Row]:
    """Settings next to those measured: inside one node, of more nodes, of other sizes, with half the SMs."""
    found: dict[tuple[object, ...], Row] = {}
    for row in {row.op: row for row in sorted(rows, key=lambda row: row.ranks)}.values():
        one_domain, more = row.library.startswith("trtllm"), []
        if row.nodes > 1 and row.per_node > 1:
            more.append(replace(row, nodes=1, ranks=row.per_node))
        more += [replace(row, tokens=max(1, int(size * row.tokens))) for size in _OTHER_SIZES]
        more.append(replace(row, ranks=2 * row.ranks, nodes=row.nodes if one_domain else 2 * row.nodes))
        if row.sms and row.sms > 1:
            more.append(replace(row, sms=row.sms // 2))
        for one in more:
            if one.op == "alltoall":
                one = replace(one, tokens=max(1, one.tokens // one.ranks) * one.ranks)
            if not any(_setting(one) == _setting(row) for row in rows):
                found[_setting(one)] = one
    return list(found.values())


def _can_run(row: Row, on: OnRanks | None) -> bool:
    if row.op != "alltoall" and (row.experts % row.ranks or row.tokens > MOST_TOKENS):
        return False
    return on is None or on(row.ranks).n_ranks == row.ranks


def _setting(row: Row) -> tuple[object, ...]:
    return row.op, row.ranks, row.nodes, row.tokens, row.sms


def _words(row: Row) -> str:
    size = f"{row.tokens} bytes" if row.op == "alltoall" else f"{row.tokens} tokens"
    nodes = "one node" if row.nodes == 1 else f"{row.nodes} nodes"
    sms = f", {row.sms} SMs" if row.sms else ""
    return f"a row of {row.op}, {size}, {row.ranks} ranks of {nodes}{sms}"


def _name(one: Free) -> str:
    owners = ", ".join(dict.fromkeys(_owner(place) for place in one.places))
    return f"{one.places[0][-1].removesuffix('_s')} of {owners}"


def _owner(place: Place) -> str:
    """Phase, kernel across nodes or protocol that a constant belongs to."""
    if place[0] == "across":
        return f"{place[1]} across nodes"
    return place[1] if len(place) > 2 else place[0]
