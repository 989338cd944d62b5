"""Fitted coefficients as they ship, made by `refit.kernel_fit.files` and never by hand.

``data/kernels/fitted.yaml`` holds what prices kernels; ``fitted_check.yaml`` the models that are checked only (the
fused MoE, one set for each model and number of ranks) and the errors of all of them at the time of the fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from moesim.compute.gpus import DATA
from moesim.located_yaml import load_yaml

FILE = DATA / "kernels" / "fitted.yaml"
CHECK_FILE = DATA / "kernels" / "fitted_check.yaml"


@dataclass(frozen=True)
class Error:
    """Relative error of a model over ``rows`` rows of ``shapes`` shapes: median and 90th percentile."""

    rows: int
    shapes: int
    median: float
    p90: float


@dataclass(frozen=True)
class Fitted:
    """Coefficients of one family on one GPU.

    ``variant`` tells sets apart that differ in the number format or the model; ``covered`` is the range of the fitted
    rows by axis; ``source`` the repository, commit and table that the rows come from.
    """

    family: str
    gpu: str
    variant: str
    source: str
    coefficients: Mapping[str, float]
    covered: Mapping[str, tuple[float, float]]
    fit: Error
    held_out: Error


Key = tuple[str, str, str]


@cache
def fitted() -> dict[Key, Fitted]:
    """Return every set of coefficients that prices kernels by (family, gpu, variant)."""
    return by_key(load_yaml(FILE).data["models"])


def stored_check() -> list[dict[str, Any]]:
    """Return the rows of the check that was run when the coefficients were fitted."""
    rows: list[dict[str, Any]] = load_yaml(CHECK_FILE).data["check"]
    return rows


def by_key(entries: list[dict[str, Any]]) -> dict[Key, Fitted]:
    """Return the models of a file by (family, gpu, variant)."""
    models = [_from_plain(entry) for entry in entries]
    return {(model.family, model.gpu, model.variant): model for model in models}


def _from_plain(entry: Mapping[str, Any]) -> Fitted:
    covered = {axis: (float(low), float(high)) for axis, (low, high) in entry["covered"].items()}
    errors = {name: Error(**entry[name]) for name in ("fit", "held_out")}
    return Fitted(**{**entry, "covered": covered, **errors})
