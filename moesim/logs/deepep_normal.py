"""DeepEP V1's tests of normal mode, ``test_internode.py`` and ``test_intranode.py``, of every age; UCCL-EP's copies.

Local rank 0 of each node prints the best of its own tuning, so joined logs hold each ``Best`` line once per node; rows
are their mean. Bandwidths are logical: RDMA counts copies per distinct node, the own one included, NVL the rows
received. Until 2025-07-14 the internode test timed the call with events, notify kernel included; later the kernel
alone, which it prints. The intranode test always took events.

Source: tests/legacy of deepseek-ai/DeepEP, ep/bench of uccl-project/uccl.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from moesim.logs.given_facts import Facts
from moesim.logs.measured_row import TIME, MeasuredRow

FORM = "DeepEP normal mode"

_N = r"[0-9]+(?:\.[0-9]+)?"
_CONFIG = re.compile(r"\[config\] .*num_tokens=.*")
_SETTING = re.compile(r"(num_\w+|hidden)=([0-9]+)")
_TUNING = re.compile(
    r"\[tuning\] (?P<best>Best (?P<op>dispatch|combine)(?: \((?P<dtype>FP8|BF16)\))?: )?"
    r"SMs (?P<sms>[0-9]+), NVL chunk (?P<chunk>[0-9]+|default)(?:, RDMA chunk [0-9]+)?[:,] "
    rf"(?:transmit: (?P<transmit>{_N}) us, notify: {_N} us, BW: |{_N} \+ (?P<second>{_N}) us, )?"
    rf"(?:(?P<rdma>{_N}) GB/s \(RDMA\), )?(?P<nvl>{_N}) GB/s \(NVL\)(?:, (?:t: |avg_t: )?(?P<event>{_N}) us)?"
)
_EVENTS = "best of tuning; logical; / event time of the call incl. notify kernel, L2 flush outside"
_KERNEL = (
    "best of tuning; logical: copies per distinct node incl. own (RDMA) or received per distinct rank (NVL) "
    "x payload / kernel time"
)
# FP8 tokens carry a scale of 4 bytes per 128 values.
_FP8 = 0.515625
# In the order in which the tests tune them.
_PHASES = (("dispatch", "fp8"), ("dispatch", "bf16"), ("combine", "bf16"))


@dataclass(frozen=True)
class _Tuned:
    """A tuning line: GB/s and, where printed, microseconds; ``settings`` are those of the config line before it."""

    settings: tuple[tuple[str, int], ...]
    op: str
    dtype: str
    sms: int
    rdma: float | None
    nvl: float
    us: float | None
    kernel: bool

    @property
    def run(self) -> tuple[object, ...]:
        """What lines of the same phase of the same run share."""
        return self.settings, self.op, self.dtype, self.sms, self.rdma is None

    @property
    def bandwidth(self) -> float:
        """The figure that is quoted: RDMA across nodes, NVL inside."""
        return self.nvl if self.rdma is None else self.rdma


def read(text: str, facts: Facts) -> list[MeasuredRow] | None:
    """Read the ``Best`` lines of a log; None if it has no tuning lines.

    Raises:
        InputError: a fact is missing that the log does not hold.
    """
    settings: tuple[tuple[str, int], ...] = ()
    best: list[_Tuned] = []
    trials: list[_Tuned] = []
    behind: list[_Tuned] = []  # trials after the last Best
    for line in re.finditer(rf"{_CONFIG.pattern}|{_TUNING.pattern}", text):
        found = _TUNING.match(line[0])
        if found is None:
            settings = tuple(sorted((name, int(value)) for name, value in _SETTING.findall(line[0])))
        elif found["best"]:
            best.append(_tuned(settings, found, found["op"], (found["dtype"] or "BF16").lower()))
            behind = []
        elif found["chunk"] != "default":
            op, dtype = _PHASES[min(len({(one.op, one.dtype) for one in best}), 2)]
            behind.append(_tuned(settings, found, op, dtype))
            trials.append(behind[-1])
    if not best and not trials:
        return None
    cut = []
    if behind and len({(one.op, one.dtype) for one in best}) < len(_PHASES):
        cut = [max(behind, key=lambda one: one.bandwidth)]
        facts.note(f"the log ends before Best of {cut[0].op} ({cut[0].dtype}): the best of its trials is taken")
    _check(best, trials, facts)
    uccl = re.search(r"\buccl|avg_t: [0-9.]+ us$|\[buffer\] num_nvlink_bytes", text, re.IGNORECASE | re.MULTILINE)
    library = "uccl-ep" if uccl else "deepep-v1"
    runs: dict[tuple[object, ...], list[_Tuned]] = {}
    for one in (*best, *cut):
        runs.setdefault(one.run, []).append(one)
    return [row for lines in runs.values() for row in _rows(lines, library, facts)]


def _tuned(settings: tuple[tuple[str, int], ...], found: re.Match[str], op: str, dtype: str) -> _Tuned:
    kernel = found["transmit"] or found["second"]
    us = kernel or found["event"]
    return _Tuned(
        settings=settings,
        op=op,
        dtype=dtype,
        sms=int(found["sms"]),
        rdma=float(found["rdma"]) if found["rdma"] else None,
        nvl=float(found["nvl"]),
        us=float(us) if us else None,
        kernel=kernel is not None,
    )


def _rows(lines: Sequence[_Tuned], library: str, facts: Facts) -> list[MeasuredRow]:
    one = lines[0]
    inside = one.rdma is None
    printed = dict(one.settings)
    place = facts.place(inside=inside)
    tokens = facts.said("tokens", printed.get("num_tokens"), 4096)
    hidden = facts.said("hidden", printed.get("hidden"), 7168)
    top_k = facts.said("top_k", printed.get("num_topk"), 8)
    nodes = None if inside else facts.said("top_nodes", printed.get("num_topk_groups"), min(place["nodes"], 4))
    columns = place | {
        "library": library,
        "tokens": tokens,
        "hidden": hidden,
        "top_k": top_k,
        "experts": facts.said("experts", printed.get("num_experts"), 256 // place["ranks"] * place["ranks"] or None),
        "top_nodes": nodes,
        "dtype": one.dtype,
        "sms": one.sms,
        "op": one.op,
        "definition": (_KERNEL if one.kernel else _EVENTS) + "; intranode" * inside,
        "transport": "nvlink" if inside else None,
        "note": f"mean of {len(lines)} nodes' best" if len(lines) > 1 else None,
    }
    usual = min(place["nodes"], 4)
    if nodes not in (None, usual):
        facts.note(f"num_topk_groups={nodes} on {place['nodes']} nodes, where the test's default is {usual}")
    if len(lines) not in (1, place["nodes"]):
        facts.note(f"{len(lines)} lines of Best {one.op} ({one.dtype}) on {place['nodes']} nodes: their mean is taken")
    quantity = "nvl_GBps" if inside else "rdma_GBps"
    rows = [facts.row(**columns | {"quantity": quantity, "value": fmean(each.bandwidth for each in lines)})]
    times = [each.us for each in lines if each.us is not None]
    if times:
        rows.append(facts.row(**columns | {"quantity": TIME, "value": facts.credible(fmean(times))}))
        _check_bytes(one, times[0], 2 * tokens * hidden, nodes or top_k, facts)
    return rows


def _check(best: Sequence[_Tuned], trials: Sequence[_Tuned], facts: Facts) -> None:
    """Note a Best whose NVL / RDMA is no other line's: the bytes behind both are a rank's own, the same in all."""
    kinds = ((True, best), (False, trials))
    lines = [(one.nvl / one.rdma, is_best, one) for is_best, kind in kinds for one in kind if one.rdma]
    lines.sort(key=lambda line: line[0])
    for index, (ratio, is_best, one) in enumerate(lines):
        others = [line[0] for line in lines[max(0, index - 1) : index] + lines[index + 1 : index + 2]]
        slack = 2e-3 + 0.01 / (one.rdma or 1)
        if is_best and others and not any(abs(ratio / other - 1) < slack for other in others):
            facts.note(
                f"Best {one.op} ({one.dtype}): {one.rdma} GB/s (RDMA) and {one.nvl} GB/s (NVL) are not in the ratio of "
                "the other lines"
            )


def _check_bytes(one: _Tuned, us: float, token_bytes: int, most: int, facts: Facts) -> None:
    """Note a line whose GB/s x us its tokens cannot be: from a part of them once to each as often as it may go."""
    copies = one.bandwidth * 1e3 * us / token_bytes * (1 / _FP8 if one.dtype == "fp8" else 1)
    # What a rank receives over NVLink depends on how even the load is.
    if not 0.25 <= copies <= most * (1.02 if one.rdma else 1.5):
        facts.note(f"Best {one.op} ({one.dtype}): {one.bandwidth} GB/s x {us} us are {copies:.2f} copies of each token")
