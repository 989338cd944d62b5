"""Fit the coefficients of the kernel models on the rows that the frozen split gives to the fit.

Least squares on log(model / measured) with a soft-L1 loss, so that a few odd rows do not pull the rest, from several
starting points with a fixed seed. Rows of uneven loads (`draws`) count half, by the mean of their draws: a row is
itself the mean of five draws that were not recorded. Coefficients are rounded to four digits before they are judged.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from moesim.compute.fitted.coefficients import CHECK_FILE, FILE, Error, Fitted
from moesim.compute.gpus import Gpu, load_gpu, nearest
from moesim.compute.roofline import Floats
from moesim.errors import InputError
from refit.families import FAMILIES, Family, Parameter, parameters, with_draws
from refit.kernel_check import check_models, drawn, even, held_out
from refit.timed_rows import READERS, Rows, read

# Models that price nothing.
CHECKED_ONLY = ("fused_moe",)
STARTS = 8
SEED = 1
ODD = 0.05  # a row that misses by more than this counts linearly
DRAWS = 20
DRAWN_WEIGHT = 0.5
DIGITS = 4
HEADER = "# Made by refit.kernel_fit.files from measured rows; not to be edited. Seconds, shares, bytes/s.\n"


def fit(reference: Path, families: Sequence[str] | None = None) -> dict[str, Any]:
    """Fit ``families`` (default: all) on the tables in ``reference``.

    Returns what ``fitted.yaml`` holds: ``models``, the coefficients of each family, GPU and variant with their source,
    range and errors, and ``check``, the errors by role. Raises InputError for an unknown family or a missing table.
    """
    wanted = list(families or FAMILIES)
    for family in wanted:
        if family not in FAMILIES:
            raise InputError(f"unknown family {family!r}", "--family", nearest(family, FAMILIES))
    models = [
        model for family in wanted for gpu in READERS[family].gpus for model in fit_gpu(Path(reference), family, gpu)
    ]
    by_key = {(model.family, model.gpu, model.variant): model for model in models}
    rows = check_models(Path(reference), by_key, wanted)
    return {"models": [plain(model) for model in models], "check": [asdict(row) for row in rows]}


def files(found: dict[str, Any]) -> dict[str, bytes]:
    """Return the files that moesim ships (`coefficients`), by name, from what a fit of all families found."""
    priced = [model for model in found["models"] if model["family"] not in CHECKED_ONLY]
    checked = [model for model in found["models"] if model["family"] in CHECKED_ONLY]
    contents = {FILE: {"models": priced}, CHECK_FILE: {"models": checked, "check": found["check"]}}
    return {file.name: _text(content) for file, content in contents.items()}


def _text(content: dict[str, Any]) -> bytes:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style, yaml.width = None, 118
    text = io.StringIO()
    yaml.dump(content, text)
    return (HEADER + text.getvalue()).encode()


def plain(model: Fitted) -> dict[str, Any]:
    """Return ``model`` as it stands in the file: dicts, lists, numbers."""
    entry = asdict(model)
    entry["coefficients"] = dict(model.coefficients)
    entry["covered"] = {axis: list(span) for axis, span in model.covered.items()}
    return entry


def fit_gpu(reference: Path, family_name: str, gpu_name: str) -> list[Fitted]:
    """Fit every variant of a family on one GPU."""
    family, gpu = FAMILIES[family_name], load_gpu(gpu_name)
    rows = read(reference, family_name, gpu_name)
    models = []
    for variant in sorted(set(rows.variant)):
        own = rows.where(np.array([name == variant for name in rows.variant]))
        models.append(_fit_variant(family, gpu, variant, own))
    return models


def _fit_variant(family: Family, gpu: Gpu, variant: str, rows: Rows) -> Fitted:
    out = held_out(rows)
    fitted, uneven = even(rows.where(~out)), drawn(family, rows.where(~out))
    bounded = parameters(family.name, variant)
    names = [parameter.name for parameter in bounded]
    work = family.prepare(gpu, fitted)
    spread = with_draws(uneven, DRAWS) if len(uneven) else None
    spread_work = None if spread is None else family.prepare(gpu, spread)

    def residuals(values: Floats) -> Floats:
        c = dict(zip(names, values, strict=True))
        own: Floats = np.log(family.seconds(gpu, variant, c, work) / fitted.seconds)
        if spread is None:
            return own
        mean = family.seconds(gpu, variant, c, spread_work).reshape(len(uneven), DRAWS).mean(axis=1)
        return np.concatenate([own, DRAWN_WEIGHT * np.log(mean / uneven.seconds)])

    best = _least_squares(residuals, bounded)
    c = {name: float(f"{value:.{DIGITS}g}") for name, value in zip(names, best, strict=True)}
    axes = family.axes(fitted)
    if spread is not None:
        more = family.axes(spread)
        axes = {name: np.concatenate([values, more[name]]) for name, values in axes.items()}
    return Fitted(
        family=family.name,
        gpu=gpu.name,
        variant=variant,
        source=rows.source,
        coefficients=c,
        covered={name: (float(values.min()), float(values.max())) for name, values in axes.items()},
        fit=error(family, gpu, variant, c, fitted),
        held_out=error(family, gpu, variant, c, even(rows.where(out))),
    )


def error(family: Family, gpu: Gpu, variant: str, c: Mapping[str, float], rows: Rows) -> Error:
    """Return the relative error of the model over ``rows``."""
    misses = np.abs(family.seconds(gpu, variant, c, family.prepare(gpu, rows)) / rows.seconds - 1.0)
    median, p90 = (float(f"{np.quantile(misses, q):.{DIGITS}g}") for q in (0.5, 0.9))
    return Error(len(rows), len(set(rows.shape)), median, p90)


def _least_squares(residuals: Callable[[Floats], Floats], bounded: Sequence[Parameter]) -> Floats:
    from scipy.optimize import least_squares

    start, low, high = (np.array([getattr(p, name) for p in bounded]) for name in ("start", "low", "high"))
    margin = 1e-9 * (high - low)
    scale = np.maximum(np.abs(start), 1e-3 * (high - low))
    rng = np.random.default_rng(SEED)
    solution, least = start, np.inf
    for attempt in range(STARTS):
        first = start * np.exp(rng.normal(0.0, 0.4 if attempt else 0.0, len(start)))
        found = least_squares(
            residuals,
            np.clip(first, low + margin, high - margin),
            bounds=(low, high),
            loss="soft_l1",
            f_scale=ODD,
            x_scale=scale,
            max_nfev=300,
        )
        if found.cost < least:
            solution, least = found.x, found.cost
    # The solver stays a hair inside the bounds.
    close = 1e-5 * (high - low)
    at_low: Floats = np.where(solution - low < close, low, solution)
    inside: Floats = np.where(high - solution < close, high, at_low)
    return inside
