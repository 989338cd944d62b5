"""DeepEP V2's ``tests/elastic/test_ep.py``.

Every rank prints one line per kernel and case. The rows are the transfer kernels of the uncached dispatch (``*``) and
of the plain combine (``@``), as means over ranks and over the cases of a type of token; copy and reduction are apart.
Scale-out x scale-up are nodes x ranks of an NVLink domain, unless everything is scale-up: without hybrid mode the test
says 1 x all on several nodes too.

Source: tests/elastic/test_ep.py of deepseek-ai/DeepEP.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from moesim.logs.given_facts import Facts, rack_scale
from moesim.logs.measured_row import TIME, MeasuredRow

FORM = "DeepEP V2 test_ep"

_N = r"[0-9]+(?:\.[0-9]+)?"
_SAID = re.compile(
    r"> Ranks: (?P<out>[0-9]+) x (?P<up>[0-9]+)"
    r"|> Experts: (?P<top_k>[0-9]+)/(?P<experts>[0-9]+)"
    r"|> Tokens: [0-9]+ \(max: (?P<tokens>[0-9]+)\), hidden: (?P<hidden>[0-9]+)"
    r"|> #SM: (?P<sms>[0-9]+)"
    r"|> Testing with .*?use_fp8_dispatch=(?P<fp8>\w+)"
    r"|(?P<kernel>[*@]) EP: +(?P<rank>[0-9]+)/(?P<ranks>[0-9]+) \| (?:dispatch|combine): "
    rf"{_N} GB/s \(SO\), (?P<up_rate>{_N}) GB/s \(SU\), (?P<us>{_N}) us, (?P<bytes>{_N}) bytes"
)
_MOST_IN_A_HOST = 8
_DEFINITION = (
    "tests/elastic/test_ep.py, all-rank mean of the transfer kernel (dispatch not cached; combine, not reduced combine)"
)


@dataclass(frozen=True)
class _Setting:
    """What the headers said last."""

    out: int | None = None
    up: int | None = None
    top_k: int | None = None
    experts: int | None = None
    tokens: int | None = None
    hidden: int | None = None
    sms: int | None = None


def read(text: str, facts: Facts) -> list[MeasuredRow] | None:
    """Read the ranks' lines; None if there are none.

    Raises:
        InputError: a fact is missing that the log does not hold, or the times are no measurements.
    """
    setting, dtype = _Setting(), "fp8"
    phases: dict[tuple[_Setting, int, str, str], list[tuple[int, float]]] = {}
    for found in _SAID.finditer(text):
        said = {name: value for name, value in found.groupdict().items() if value is not None}
        if "kernel" in said:
            op = "dispatch" if said["kernel"] == "*" else "combine"
            us = facts.credible(float(said["us"]))
            _check(op, float(said["up_rate"]), us, float(said["bytes"]), facts)
            phase = setting, int(said["ranks"]), op, dtype if op == "dispatch" else "bf16"
            phases.setdefault(phase, []).append((int(said["rank"]), us))
        elif "fp8" in said:
            dtype = "fp8" if said["fp8"] in ("1", "True") else "bf16"
        else:
            setting = replace(setting, **{name: int(value) for name, value in said.items()})
    settings = list(dict.fromkeys(phase[0] for phase in phases))
    ordered = sorted(phases.items(), key=lambda item: (settings.index(item[0][0]), item[0][2] == "combine"))
    return [_row(*phase, lines, facts) for phase, lines in ordered] or None


def _row(
    setting: _Setting, ranks: int, op: str, dtype: str, lines: Sequence[tuple[int, float]], facts: Facts
) -> MeasuredRow:
    split = setting.out if setting.out and setting.up and setting.out * setting.up == ranks else None
    if split == 1 and ranks > _MOST_IN_A_HOST and not rack_scale(facts.get("gpu_moesim") or facts.get("gpu") or ""):
        split = None
    place = facts.place(ranks=ranks, nodes=split)
    if split and split > 1:
        place["nodes"] = split
    heard = {rank for rank, _ in lines}
    if len(heard) < ranks:
        facts.note(f"{op} ({dtype}): lines of {len(heard)} of {ranks} ranks")
    return facts.row(
        **place,
        library="deepep-v2",
        tokens=facts.said("tokens", setting.tokens),
        hidden=facts.said("hidden", setting.hidden),
        top_k=facts.said("top_k", setting.top_k),
        experts=facts.said("experts", setting.experts),
        dtype=dtype,
        sms=setting.sms,
        op=op,
        quantity=TIME,
        value=fmean(us for _, us in lines),
        definition=_DEFINITION,
        note=f"mean of {len(lines)} lines of {len(heard)} ranks, the slowest {max(us for _, us in lines):g} us",
    )


def _check(op: str, rate: float, us: float, size: float, facts: Facts) -> None:
    """Note a line whose bytes over time are not its GB/s, which is printed whole."""
    reached = size / us / 1e3
    if abs(reached - rate) > 0.5 + 2e-3 * rate:
        facts.note(f"{op}: {size:.0f} bytes in {us:g} us are {reached:.1f} GB/s, not {rate:g} (SU) as printed")
