"""Print the tables of docs/kernels.md, made from the files that ship: python docs/kernel_fits.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moesim.compute.fitted.coefficients import Fitted, fitted
from moesim.compute.fitted.models import TITLES
from refit.families import FAMILIES
from refit.kernel_check import CheckRow, check
from refit.timed_rows import EXCLUSIONS

MICROSECONDS = ("t0", "tE", "a", "tc", "tq", "th")


def tables() -> str:
    """Return the tables of coefficients and of errors in Markdown."""
    parts = ["### Coefficients", ""]
    for family in FAMILIES:
        models = [model for model in fitted().values() if model.family == family]
        if models:
            parts += [f"**{TITLES[family]}** (`{family}`)", "", *_coefficients(models), ""]
    rows = check()
    parts += ["### Errors, even loads: median / 90th percentile", "", *_errors(rows), ""]
    parts += ["### Uneven loads", "", *_skew(rows), ""]
    parts += ["### Left out of both sides", "", *(f"- `{name}`: {reason}." for name, reason in EXCLUSIONS.items())]
    return "\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _coefficients(models: Sequence[Fitted]) -> list[str]:
    names = list(dict.fromkeys(name for model in models for name in model.coefficients))
    head = ["GPU", *(f"{name}{_unit(name)}" for name in names), "range of the fit"]
    rows = []
    for model in models:
        values = [_value(name, model.coefficients.get(name)) for name in names]
        spans = (
            f"{axis} {low:g}-{high:g}" if low < high else f"{axis} {low:g}" for axis, (low, high) in _rounded(model)
        )
        rows.append([f"{model.gpu} {model.variant}".strip(), *values, ", ".join(spans)])
    return _table(head, rows)


def _rounded(model: Fitted) -> list[tuple[str, tuple[float, float]]]:
    return [(axis, (float(f"{low:.4g}"), float(f"{high:.6g}"))) for axis, (low, high) in model.covered.items()]


def _unit(name: str) -> str:
    return " us" if name in MICROSECONDS else {"s": " ns", "Rq": " TB/s"}.get(name, "")


def _value(name: str, value: float | None) -> str:
    if value is None:
        return ""
    scale = 1e6 if name in MICROSECONDS else {"s": 1e9, "Rq": 1e-12}.get(name, 1.0)
    return f"{value * scale:.4g}"


def _errors(rows: Sequence[CheckRow]) -> list[str]:
    lines = []
    for fit, out in zip((r for r in rows if r.role == "fit"), (r for r in rows if r.role == "held_out"), strict=True):
        lines.append(
            [
                f"{out.family}, {out.gpu}{f', {out.note}' if out.note.startswith('cache') else ''}",
                f"{fit.rows} / {fit.shapes}",
                f"{out.rows} / {out.shapes}",
                _percent(fit.median, fit.p90),
                _percent(out.median, out.p90),
                _percent(out.bar_median, out.bar_p90),
                "yes" if out.meets else "no",
            ]
        )
    head = ["family, GPU", "rows / shapes fitted", "held out", "fit %", "held out %", "bar %", "kept"]
    return _table(head, lines)


def _percent(*shares: float | None) -> str:
    return " / ".join("-" if share is None else f"{100 * share:.1f}" for share in shares)


def _skew(rows: Sequence[CheckRow]) -> list[str]:
    head = ["family, GPU", "rows", "of shapes", "mean bias %", "inside p10..p90 of a draw %", "of the mean of five %"]
    lines = []
    for row in rows:
        if row.role.startswith("skew"):
            of_five = row.note.rpartition(":")[2].strip().removesuffix(" %")
            held = "held out" if row.role == "skew_held_out" else "fitted"
            lines.append(
                [
                    f"{row.family}, {row.gpu}",
                    str(row.rows),
                    held,
                    f"{100 * row.median:.1f}",
                    f"{100 * row.p90:.0f}",
                    of_five,
                ]
            )
    return _table(head, lines)


if __name__ == "__main__":
    print(tables())
