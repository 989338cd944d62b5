"""A set of constants as a file: what ``moesim.traffic.constant_sets`` reads, with units, five significant digits."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from moesim.traffic import CalibrationSet, Protocol, Step, Uncertain

_DIGITS = 5
# A fit that lets a time go to nothing stops just before.
_SHORTEST_S = 1e-12


def spell_set(found: CalibrationSet) -> str:
    """Spell a set as YAML, its ports too; constants that are 0 are left out, as absent terms."""
    nvlink, nic = quantity("nvlink_rate", found.nvlink_peak), quantity("nic_rate", found.nic_peak)
    lines = [
        f"algorithm: {found.algorithm}",
        f"gpu: {found.gpu}",
        f"transport: {found.transport}",
        f"library: {_text(found.library)}",
        f"source: {_text(found.source)}",
        f"ports: {{nvlink: {nvlink}, nic: {nic}, sms: {found.sms}}}",
    ]
    if found.rates_count != "wire":
        lines.append(f"rates_count: {found.rates_count}")
    if found.clusters:
        lines += ["clusters:", *(f"  {_text(name)}: {rows}" for name, rows in found.clusters.items())]
    if found.row_spread:
        lines.append(f"row_spread: {_short(found.row_spread)}")
    if found.widen != 1:
        lines.append(f"widen: {_short(found.widen)}")
    lines += _listed("rows", found.rows)
    for name, errors in (("error", found.error), ("held_out", found.held_out)):
        if errors:
            parts = (f"{key}: {int(value) if key == 'rows' else format(value, '.4f')}" for key, value in errors.items())
            lines.append(f"{name}: {{{', '.join(parts)}}}")
    lines += _listed("notes", found.notes)
    for phase, terms in found.phases.items():
        lines += [f"{phase}:", *_terms(terms, "  ")]
    if found.across:
        lines.append("across:")
        for phase, terms in found.across.items():
            lines += [f"  {phase}:", *_terms(terms, "    ")]
    if found.uncertain:
        lines += ["uncertain:", *(line for one in found.uncertain for line in _uncertain(one))]
    return "\n".join(lines) + "\n"


def _uncertain(one: Uncertain) -> list[str]:
    """Constants that move together, their deviation, and a line for each axis that they answer to."""
    of = ", ".join(".".join((*place[:-1], place[-1].removesuffix("_s"))) for place in one.places)
    lines = [f"  - of: [{of}]", f"    kind: {one.kind}", f"    deviation: {_short(one.deviation)}"]
    for axis in one.answers:
        steps: Mapping[str, Step] = getattr(one, axis)
        lines.append(f"    {axis}:" if steps else f"    {axis}: {{}}")
        lines += [
            f"      {level}: {{factor: {_short(step.factor)}, deviation: {_short(step.deviation)}, "
            f"clusters: {step.clusters}}}"
            for level, step in steps.items()
        ]
    return lines


def _listed(name: str, items: Iterable[str]) -> list[str]:
    items = list(items)
    return [f"{name}: []"] if not items else [f"{name}:", *(f"  - {_text(item)}" for item in items)]


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _terms(terms: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in terms.items():
        if name == "protocols":
            if value:
                lines.append(f"{indent}protocols:")
            for one in value:
                parts = (f"{key.removesuffix('_s')}: {text}" for key, text in _protocol(one))
                lines.append(f"{indent}  - {{{', '.join(parts)}}}")
        elif value or name in ("nvlink_rate", "nic_rate"):
            lines.append(f"{indent}{name.removesuffix('_s')}: {quantity(name, value)}")
    return lines


def _protocol(one: Protocol) -> list[tuple[str, str]]:
    values = [(field.name, getattr(one, field.name)) for field in fields(one)]
    return [(name, value if name == "name" else quantity(name, value)) for name, value in values if value]


def quantity(name: str, value: float) -> str:
    """Spell a constant's value with its unit: ``328GB/s``, ``12.5us``."""
    if "rate" in name:
        return f"{_short(value / 1e9)}GB/s"
    if name.endswith("_s"):
        value = value if abs(value) >= _SHORTEST_S else 0.0
        return f"{_short(value * 1e9)}ns" if 0 < value < 1e-6 else f"{_short(value * 1e6)}us"
    return str(value) if isinstance(value, int) else _short(value)


def _short(value: float) -> str:
    """Five significant digits, without an exponent."""
    text = f"{float(f'{value:.{_DIGITS - 1}e}'):.12f}"
    return text.rstrip("0").rstrip(".")


def rounded(found: CalibrationSet) -> CalibrationSet:
    """The set with its numbers rounded as the file has them, so that what was judged is what ships."""

    def block(terms: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _rounded(value) for name, value in terms.items()}

    def steps(levels: Mapping[str, Step]) -> dict[str, Step]:
        return {
            level: replace(step, factor=_rounded(step.factor), deviation=_rounded(step.deviation))
            for level, step in levels.items()
        }

    return replace(
        found,
        phases={phase: block(terms) for phase, terms in found.phases.items()},
        across={phase: block(terms) for phase, terms in found.across.items()},
        uncertain=tuple(
            replace(one, deviation=_rounded(one.deviation), gpu=steps(one.gpu), transport=steps(one.transport))
            for one in found.uncertain
        ),
        row_spread=_rounded(found.row_spread),
        widen=_rounded(found.widen),
        nvlink_peak=_rounded(found.nvlink_peak),
        nic_peak=_rounded(found.nic_peak),
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS - 1}e}")
    if isinstance(value, tuple):
        return tuple(
            Protocol(**{field.name: _rounded(getattr(one, field.name)) for field in fields(one)}) for one in value
        )
    return value
