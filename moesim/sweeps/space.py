"""The points of a sweep: axes, their combinations, and a draw from them.

An axis is one dotted key with its values, or several keys that move together. The points are all combinations, the
last axis varying fastest, or so many of them drawn without replacement. Points are numbered; their values are worked
out from the number, so that a sweep of many points holds none of them.
"""

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from moesim.errors import InputError
from moesim.scenario import Override, Scenario, check_axis, from_here, parse_axis

if TYPE_CHECKING:
    from moesim.scenario import RandomPoints, Sweep

MAX_POINTS = 100_000


@dataclass(frozen=True)
class Axis:
    """Keys that move together (often one), and their values: ``values[i][k]`` is the i-th value of key k."""

    keys: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]

    @property
    def name(self) -> str:
        """The keys, joined."""
        return " + ".join(self.keys)


@dataclass(frozen=True)
class Space:
    """All points of a sweep.

    Attributes:
        axes: the axes.
        drawn: how many combinations are drawn; None for all.
        draw_seed: seed of the draw.
    """

    axes: tuple[Axis, ...]
    drawn: int | None = None
    draw_seed: int = 0

    def __len__(self) -> int:
        return self.combinations if self.drawn is None else self.drawn

    @property
    def combinations(self) -> int:
        """Number of combinations of all axes."""
        return math.prod(len(axis.values) for axis in self.axes)

    @cached_property
    def _cells(self) -> Sequence[int]:
        """Which combination each point is."""
        if self.drawn is None:
            return range(self.combinations)
        import numpy as np

        rng = np.random.default_rng(self.draw_seed)
        cells = rng.choice(self.combinations, self.drawn, replace=False, shuffle=False)
        return [int(cell) for cell in np.sort(cells)]

    def places(self, point: int) -> tuple[int, ...]:
        """Return the position of a point along each axis."""
        cell, places = self._cells[point], []
        for axis in reversed(self.axes):
            cell, place = divmod(cell, len(axis.values))
            places.append(place)
        return tuple(reversed(places))

    def values(self, point: int) -> dict[str, Any]:
        """Return the value of every key at a point."""
        pairs: dict[str, Any] = {}
        for axis, place in zip(self.axes, self.places(point), strict=True):
            pairs.update(zip(axis.keys, axis.values[place], strict=True))
        return pairs

    def point_at(self, places: Sequence[int]) -> int | None:
        """Return the point at a position along each axis; None where it was not drawn."""
        cell = 0
        for axis, place in zip(self.axes, places, strict=True):
            cell = cell * len(axis.values) + place
        if self.drawn is None:
            return cell
        found = bisect_left(self._cells, cell)
        return found if found < len(self._cells) and self._cells[found] == cell else None

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that differs between points, in the order of the axes."""
        return tuple(key for axis in self.axes for key in axis.keys)

    def described(self) -> dict[str, Any]:
        """Return the space as plain data."""
        axes = [{key: [row[k] for row in axis.values] for k, key in enumerate(axis.keys)} for axis in self.axes]
        return {"axes": axes, "drawn": self.drawn, "draw_seed": self.draw_seed if self.drawn is not None else None}


def parse_axis_option(text: str) -> tuple[str, Any]:
    """Read ``routing.top_k=2,4,8`` (or ``1..8``); a relative path among the values starts in the current folder.

    Raises:
        InputError: not of this form.
    """
    key, equals, values = text.partition("=")
    key, origin = key.strip(), f"-p {' '.join(text.split())[:100]}"
    if not equals or not key:
        raise InputError(f"{text!r:.80} is not an axis", origin, "write KEY=VALUES, such as routing.top_k=2,4,8")
    try:
        return key, parse_axis(values)
    except InputError as error:
        raise InputError(error.what, origin, error.fix) from None


def parse_together_option(text: str) -> dict[str, Any]:
    """Read ``model.n_experts=64,128; model.expert_hidden=2048,1024``: axes that move together.

    Raises:
        InputError: not of this form.
    """
    return parse_axis_options(part for part in text.split(";") if part.strip())


def parse_axis_options(texts: Iterable[str]) -> dict[str, Any]:
    """Read axes; InputError where one is not of this form, or two have one key."""
    found: dict[str, Any] = {}
    for key, values in map(parse_axis_option, texts):
        if key in found:
            raise InputError(f"{key} is on two axes", f"-p {key:.80}", "name each key once")
        found[key] = values
    return found


def space_of(
    sweep: "Sweep | None",
    axes: Mapping[str, Any] | None = None,
    together: Sequence[Mapping[str, Any]] = (),
    random: "RandomPoints | None" = None,
) -> Space:
    """Join the axes of a scenario's ``sweep`` block with further ones; those given here replace its axes by name.

    Args:
        sweep: the block, None for none.
        axes: dotted key -> values, a list or text such as ``1..8``.
        together: axes of several keys each.
        random: how many combinations to draw; None for what the block says.

    Raises:
        InputError: an unknown key, a key given twice, keys of one axis with different numbers of values, no axis,
            more than 100,000 points.
    """
    plain = dict(sweep.axes) if sweep else {}
    plain |= {key: _typed_here(key, parse_axis(values)) for key, values in (axes or {}).items()}
    groups = [
        *(sweep.zip if sweep else ()),
        *({k: _typed_here(k, parse_axis(v)) for k, v in g.items()} for g in together),
    ]
    taken: set[str] = set()
    for key in (*plain, *(key for group in groups for key in group)):
        check_axis(key, Scenario)
        if key in taken:
            raise InputError(f"{key} is on two axes", where="sweep", fix="name each key once")
        taken.add(key)
    for group in groups:
        if not group or len({len(values) for values in group.values()}) != 1:
            lengths = ", ".join(f"{key}: {len(values)}" for key, values in group.items()) or "none"
            raise InputError(f"keys that move together need as many values each ({lengths})", where="sweep")
    made = [Axis((key,), tuple((value,) for value in values)) for key, values in plain.items()]
    made += [Axis(tuple(group), tuple(zip(*group.values(), strict=True))) for group in groups]
    if not made:
        raise InputError("nothing to sweep over", fix="give -p KEY=VALUES or a sweep block in the scenario")
    for axis in made:
        rows = [[int(one) if type(one) is float and one % 1 == 0 else one for one in row] for row in axis.values]
        if len(set(map(json.dumps, rows))) < len(rows):
            raise InputError(f"{', '.join(axis.keys)}: a value stands there twice", "sweep", "name each value once")
    space = Space(tuple(made))
    draw = random or (sweep.random if sweep else None)
    if draw is not None:
        if draw.points > space.combinations:
            raise InputError(
                f"{draw.points} points of only {space.combinations} combinations",
                where="sweep.random",
                fix="draw fewer",
            )
        space = Space(tuple(made), draw.points, draw.seed)
    if len(space) > MAX_POINTS:
        raise InputError(f"{len(space):,} points, {MAX_POINTS:,} at most", where="sweep", fix="draw some at random")
    return space


def axis_label(value: Any) -> str:
    """Return the value of an axis as people write it."""
    return value if isinstance(value, str) else json.dumps(value)


def _typed_here(key: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """Make relative paths among the values absolute: they were typed in the current folder."""
    return tuple(from_here(Override(tuple(key.split(".")), value, key)).value for value in values)
