"""How far the fitted models are from the rows: those they were fitted on and those that were held out.

Which shapes are held out was frozen before the first fit in ``data/split.csv``; nothing is drawn again when
rows are added. The rule, for each family and GPU: take the shapes in the order of the SHA-256 of "family/shape" and
hold out a third of them (rounded to the nearest), passing over a shape without which the others would no longer reach
as far on every axis (batch, length, tokens, ranks, experts, sizes).
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.compute.fitted import coefficients
from moesim.compute.fitted.coefficients import Fitted
from moesim.compute.gpus import Gpu, load_gpu
from moesim.compute.roofline import Floats
from moesim.errors import InputError
from moesim.located_yaml import load_yaml
from refit.draws import DRAWS_PER_ROW
from refit.families import FAMILIES, Family, with_draws
from refit.timed_rows import READERS, Rows, read

DRAWS = 100
SKEW_BIAS, SKEW_INSIDE = 0.05, 0.70

Models = Mapping[tuple[str, str, str], Fitted]


@cache
def frozen_split() -> dict[tuple[str, str, str], str]:
    """Return the role, fit or held_out, by (family, gpu, shape)."""
    with (Path(__file__).parent / "data" / "split.csv").open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return {(row["family"], row["gpu"], row["shape"]): row["role"] for row in rows}


@cache
def checked() -> dict[coefficients.Key, Fitted]:
    """Return every set of coefficients that ships by (family, gpu, variant), those that are checked only with them."""
    return coefficients.fitted() | coefficients.by_key(load_yaml(coefficients.CHECK_FILE).data["models"])


def held_out(rows: Rows) -> NDArray[np.bool_]:
    """Return which rows the frozen split holds out."""
    roles = frozen_split()
    try:
        return np.array([roles[rows.family, rows.gpu, shape] == "held_out" for shape in rows.shape])
    except KeyError as missing:
        raise InputError(f"shape {missing} has no role", "refit/data/split.csv", "add it before fitting") from None


def even(rows: Rows) -> Rows:
    """Return the rows of even loads."""
    return rows.where(rows.exponent == 0)


def drawn(family: Family, rows: Rows) -> Rows:
    """Return the rows of uneven loads on which the family is judged."""
    if family.drawn is None:
        return rows.where(np.zeros(len(rows), dtype=np.bool_))
    return rows.where((rows.exponent > 0) & family.drawn(rows))


@dataclass(frozen=True)
class CheckRow:
    """One line of the check.

    ``role`` is fit or held_out, and ``median``, ``p90`` the relative error over ``rows`` rows of even loads; or
    skew_fit, skew_held_out, and then ``median`` is the mean bias over rows of uneven loads and ``p90`` the share of
    them that lies between the 10th and 90th percentile of the draws. ``bar_median``, ``bar_p90`` are the bars and
    ``meets`` whether both are kept; None where a role has no bar.
    """

    family: str
    gpu: str
    rows: int
    shapes: int
    role: str
    median: float
    p90: float
    bar_median: float | None
    bar_p90: float | None
    meets: bool | None
    note: str = ""


def check(reference: Path | None = None) -> list[CheckRow]:
    """Return the check of the shipped coefficients, on the tables in ``reference`` or as it was stored with them."""
    if reference is None:
        return [CheckRow(**row) for row in coefficients.stored_check()]
    return check_models(Path(reference), checked(), list(FAMILIES))


def check_models(reference: Path, models: Models, families: Sequence[str]) -> list[CheckRow]:
    """Return the check of ``models`` for each of ``families`` on each GPU that has rows."""
    lines = []
    for family in families:
        for gpu in READERS[family].gpus:
            rows = read(reference, family, gpu)
            for variants in _together(family, rows):
                own = rows.where(np.array([name in variants for name in rows.variant]))
                lines += _check(FAMILIES[family], load_gpu(gpu), models, own)
    return lines


def _together(family: str, rows: Rows) -> list[set[str]]:
    """Return the variants that are judged in one line: the fused MoE has too many for one each."""
    variants = set(rows.variant)
    return [variants] if family == "fused_moe" else [{variant} for variant in sorted(variants)]


def _check(family: Family, gpu: Gpu, models: Models, rows: Rows) -> list[CheckRow]:
    out = held_out(rows)
    lines = []
    variants = sorted(set(rows.variant))
    for role, part in (("fit", even(rows.where(~out))), ("held_out", even(rows.where(out)))):
        misses = np.abs(_price(family, gpu, models, part) / part.seconds - 1.0)
        median, p90 = (_digits(np.quantile(misses, q)) for q in (0.5, 0.9))
        note = variants[0] and f"cache in {variants[0]}" if len(variants) == 1 else _by_variant(family, part, misses)
        meets = bool(median <= family.bar[0] and p90 <= family.bar[1])
        judged = (*family.bar, meets) if role == "held_out" else (None, None, None)
        lines.append(_line(part, role, median, p90, judged, note))
    for role, part in (("skew_fit", rows.where(~out)), ("skew_held_out", rows.where(out))):
        uneven = drawn(family, part)
        if len(uneven):
            lines.append(_check_skew(family, gpu, models, uneven, role))
    return lines


def _by_variant(family: Family, rows: Rows, misses: Floats) -> str:
    names = np.array(rows.variant)
    beyond = [
        name
        for name in sorted(set(rows.variant))
        if (np.quantile(misses[names == name], [0.5, 0.9]) > np.array(family.bar)).any()
    ]
    note = f"{len(set(rows.variant))} sets of coefficients"
    return f"{note}; alone beyond the bar: {', '.join(beyond)}" if beyond else note


def _check_skew(family: Family, gpu: Gpu, models: Models, rows: Rows, role: str) -> CheckRow:
    model = models[family.name, gpu.name, rows.variant[0]]
    spread = with_draws(rows, DRAWS)
    priced = family.seconds(gpu, model.variant, model.coefficients, family.prepare(gpu, spread))
    priced = priced.reshape(len(rows), DRAWS)
    bias = _digits(float((priced.mean(axis=1) / rows.seconds - 1.0).mean()))
    inside = _digits(_inside(priced, rows.seconds).mean())
    of_five = _inside(priced.reshape(len(rows), -1, DRAWS_PER_ROW).mean(axis=2), rows.seconds).mean()
    meets = bool(abs(bias) <= SKEW_BIAS and inside >= SKEW_INSIDE)
    judged = (SKEW_BIAS, SKEW_INSIDE, meets) if role == "skew_held_out" else (None, None, None)
    note = f"mean bias, share inside p10..p90 of a draw; of the mean of five draws: {100 * of_five:.0f} %"
    return _line(rows, role, bias, inside, judged, note)


def _line(
    rows: Rows, role: str, median: float, p90: float, judged: tuple[float | None, float | None, bool | None], note: str
) -> CheckRow:
    return CheckRow(rows.family, rows.gpu, len(rows), len(set(rows.shape)), role, median, p90, *judged, note)


def _inside(priced: Floats, seconds: Floats) -> NDArray[np.bool_]:
    low, high = np.quantile(priced, [0.1, 0.9], axis=1)
    within: NDArray[np.bool_] = (low <= seconds) & (seconds <= high)
    return within


def _price(family: Family, gpu: Gpu, models: Models, rows: Rows) -> Floats:
    priced = np.zeros(len(rows))
    names = np.array(rows.variant)
    for variant in sorted(set(rows.variant)):
        own = np.flatnonzero(names == variant)
        model = models[family.name, gpu.name, variant]
        work = family.prepare(gpu, rows.where(names == variant))
        priced[own] = family.seconds(gpu, variant, model.coefficients, work)
    return priced


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
