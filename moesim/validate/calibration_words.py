"""What a user's measurements said, in words: which constants moved, and what the rows leave open."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moesim.traffic import CalibrationSet, Place, value_at
from moesim.validate.fit_constants import Free
from moesim.validate.published_row import Row, phase_of
from moesim.validate.set_file import quantity

# Fewer rows than this are fewer than a set has constants.
FEW_ROWS = 12
_MOVED = 0.002
# Largest over smallest message, below which set-up and rate look alike.
_ONE_SIZE = 8


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


def left_open(rows: Sequence[Row], start: str) -> list[str]:
    """List what rows of this kind leave open, and where it is taken from.

    Args:
        rows: measured.
        start: name of the starting set.
    """
    said = []
    one_domain = rows[0].library.startswith("trtllm")
    phases = {phase_of(row) for row in rows}
    if len(phases) == 1 and rows[0].op != "alltoall":
        other = "combine" if phases == {"dispatch"} else "dispatch"
        said.append(f"{other} was not measured: its rates and set-ups moved along, how it grows is {start}'s")
    if all(row.nodes > 1 for row in rows):
        said.append(f"nothing was measured inside one node: set-up there is {start}'s")
    if all(row.nodes == 1 for row in rows) and not one_domain:
        said.append(f"nothing was measured across nodes: NIC and set-up there are {start}'s")
    if len({row.ranks for row in rows}) == 1:
        said.append(f"only {rows[0].ranks} ranks were measured: how times grow with ranks and nodes is {start}'s")
    sizes = [row.tokens for row in rows]
    if max(sizes) < _ONE_SIZE * min(sizes):
        said.append("messages of about one size were measured: set-up and rate can hardly be separated")
    if len(rows) < FEW_ROWS:
        said.append(
            f"few rows: what they leave open is held near {start}; seven published phases, calibrated on four rows "
            "each, were 3 to 4 % off elsewhere in the median, one row in ten by more than 5 to 15 %"
        )
    return said


def _owner(place: Place) -> str:
    """Phase, kernel across nodes or protocol that a constant belongs to."""
    if place[0] == "across":
        return f"{place[1]} across nodes"
    return place[1] if len(place) > 2 else place[0]
