"""Published steps: rows of a table in the words of their sources, and what each says of a scenario.

A row is refused where no kernel can price it; what it does not state is assumed and listed with it. The columns are
those of ``data/validate/steps.csv``: who ran what, how many tokens or requests each GPU had, and the figure.
"""

import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from moesim.bounded_text import csv_rows, number
from moesim.broken_files import content, reading
from moesim.compute import KernelTable, gpus
from moesim.errors import InputError
from moesim.model import load_model, model_names
from moesim.validate.shipped_files import shipped_lines
from moesim.validate.training_rows import Unstated, readings, training_settings

STEPS = Path(__file__).resolve().parent.parent / "data" / "validate" / "steps.csv"
_NEEDED = ("id", "kind", "source", "model", "gpu", "gpus", "ep", "per_gpu", "context", "value", "unit")
TIMES = ("s", "h")
"""Units of a training step's time: of one step, or GPU hours of 1e12 tokens."""
_RATES = ("tok/s/GPU", "tok/s/node")
_MOST_BYTES = 10 * 10**6
_MOST_OF_A_GPU = 1 << 20
_BOUNDS = {
    "value": (-1e12, 1e12), "ep": (1, 1024), "gpus": (1, 65_536), "nodes": (1, 8192), "tp": (1, 1024),
    "pp": (1, 1024),
    "redundant": (0, 4096), "draft_tokens": (0, 16), "acceptance": (0, 1),
}  # fmt: skip
# The others may be a word, of what the source does not state.
_FIGURES = ("value", "draft_tokens", "acceptance")
_TOKENS = 16384
_ACCEPTANCE = 0.6
_SMS = 24


@dataclass(frozen=True)
class Step:
    """A published step.

    Attributes:
        row: as the table has it.
        settings: of the scenario; empty where it is refused.
        refused: why; empty where it is simulated.
        assumptions: what the source does not state, and what was taken.
        reading: which of two readings of the row, where there are two.
    """

    row: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    assumptions: tuple[str, ...] = ()
    reading: str = ""

    @property
    def name(self) -> str:
        """Its id, with the reading."""
        return " ".join(filter(None, (self.row["id"], self.reading)))

    @property
    def measured(self) -> float:
        """The published figure, in the row's unit."""
        return float(self.row["value"])

    @property
    def engine(self) -> tuple[str, str, str, str, bool]:
        """Rows that share one engine constant: source, model, GPU and phase; real loads apart from dealt ones."""
        row = self.row
        return row["source"], row["model"], row["gpu"], row["kind"], "real" in row.get("routing", "")

    @property
    def training(self) -> bool:
        """Whether it is a training step."""
        return self.row["kind"] == "train"

    @property
    def named(self) -> bool:
        """Whether it is DeepSeek's, a step whose loads were even or balanced: nothing is fitted, for it or on it."""
        if self.training:
            return "schedule.stage_layers" in self.settings and self.row["unit"] == "s"
        return "balanced" in self.row.get("routing", "") and "EPLB" not in self.row.get("routing", "")

    @property
    def states_all(self) -> bool:
        """Whether the source states batch, context and overlap."""
        return not any(text.startswith(("batch", "context", "overlap")) for text in self.assumptions)


def read_steps(path: Path = STEPS) -> list[Step]:
    """Read a table of published steps, one or two readings for each row.

    Raises:
        InputError: not such a table, or a figure that is no number.
    """
    with reading(path, "give a CSV table of published steps", "not readable"):
        rows = csv_rows(content(path, _MOST_BYTES).decode("utf-8-sig"), str(path))
    header: list[str] = []
    found: list[Step] = []
    for line, cells in rows:
        if not header:
            header = [name.strip() for name in cells]
            missing = [name for name in _NEEDED if name not in header]
            if missing:
                raise InputError(f"no column {missing[0]!r}", f"{path}:{line}", f"columns: {', '.join(_NEEDED)}")
            continue
        if len(cells) != len(header):
            raise InputError(f"{len(cells)} cells under {len(header)} columns", f"{path}:{line}", "quote commas")
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        _check(row, f"{path}:{line}")
        found += _readings(row)
    if not header:
        raise InputError("is empty", str(path), "give a CSV table of published steps")
    return found


def _check(row: dict[str, str], where: str) -> None:
    """Refuse a row with a number that is none, or that no step comes near; what is not stated may be any word."""
    for name, (least, most) in _BOUNDS.items():
        text, stated = row.get(name, ""), name in _FIGURES
        try:
            fits = least <= number(text) <= most
        except ValueError:
            fits = not stated or (not text and name != "value")
        if not fits:
            raise InputError(f"{name} is {text!r:.40}", where, f"a number from {least:g} to {most:g} is needed")
    for name in _NEEDED:
        if len(row[name]) > 1000 or any(len(run) > 9 for run in re.findall(r"[0-9]+", row[name])):
            raise InputError(
                f"{name} is {row[name]!r:.40}", where, "at most 1,000 characters, and nine digits in a row"
            )
    if row["kind"] in ("prefill", "decode") and row["unit"].startswith("tok/s"):
        if not 1e-3 <= float(row["value"]) <= 1e9:
            raise InputError(f"value is {row['value']!r:.40} {row['unit']}", where, "write tokens per second")
        for name in ("per_gpu", "context"):
            for found in re.findall(r"[0-9]+", row[name]):
                if not 1 <= int(found) <= _MOST_OF_A_GPU:
                    raise InputError(f"{name} is {row[name]!r:.40}", where, f"1 to {_MOST_OF_A_GPU:,} are simulated")


def _readings(row: dict[str, str]) -> list[Step]:
    refused = _refused(row)
    if refused:
        return [Step(row, refused=refused)]
    try:
        one = _settings(row)
    except Unstated as error:
        return [Step(row, refused=str(error))]
    if one.training:
        return [replace(one, settings=settings, reading=name) for name, settings in readings(one.settings).items()]
    if not row.get("draft_tokens") or "x" in row["per_gpu"].split():
        return [one]
    plain = {key: value for key, value in one.settings.items() if key not in _DRAFTS}
    taken = f"{row['draft_tokens']} drafted token, {row.get('acceptance') or _ACCEPTANCE} accepted: not stated"
    return [replace(one, assumptions=(*one.assumptions, taken), reading="B"), replace(one, settings=plain, reading="A")]


_DRAFTS = ("workload.draft_tokens", "workload.acceptance")


def _model_of(row: dict[str, str]) -> str | None:
    name = row["model"].lower().removesuffix(" without mtp")
    return name if name in model_names() else None


def _refused(row: dict[str, str]) -> str:
    """Why a row is not simulated, from what it says; empty where it is."""
    dtype, gpu = row.get("dtype", "").lower(), row["gpu"].lower()
    reasons = (
        (row["kind"] not in ("prefill", "decode", "train"), f"not a whole step: {row['kind']}"),
        (gpu not in gpus() or not KernelTable.load(gpu).published, f"no kernels of the {row['gpu']}"),
        ("fp4" in dtype, f"no FP4 kernels ({row.get('dtype')})"),
        (_model_of(row) is None, f"{row['model']} is no model with experts that moesim has"),
        (row.get("tp", "1") not in ("", "-", "1"), "attention in tensor parallel is not modelled"),
        (re.fullmatch("[0-9]+", row["ep"]) is None or int(row["ep"]) < 2, "experts on one GPU"),
        (row["unit"] not in (TIMES if row["kind"] == "train" else ()) + _RATES, f"a figure in {row['unit']}"),
    )
    return next((reason for holds, reason in reasons if holds), "")


def _settings(row: dict[str, str]) -> Step:
    decode, ep, notes = row["kind"] == "decode", int(row["ep"]), list[str]()
    model, gpu, overlap = _model_of(row), row["gpu"].lower(), row.get("overlap", "").lower()
    size = re.match(r"([0-9]+) (tokens|requests)(?: x ([0-9]+) tokens)?", row["per_gpu"])
    lengths = [int(found) for found in re.findall(r"[0-9]+", row["context"])]
    settings: dict[str, Any] = {
        **_cluster(row, gpu, ep, notes),
        "parallel.ep": ep,
        "model.preset": model,
        "schedule.phase": "training" if row["kind"] == "train" else row["kind"],
        "schedule.overlap": "none" if row["kind"] == "train" else _overlap(overlap, decode, notes),
        "alltoall.algorithm": "deepep-low-latency" if decode else "deepep-normal",
        "alltoall.dispatch_dtype": "fp8" if "fp8" in row.get("dtype", "").lower() else "bf16",
        "workload.layers_simulated": 4,
    }
    if row["kind"] == "train":
        settings = {key: value for key, value in settings.items() if key != "workload.layers_simulated"}
        return Step(row, settings | training_settings(row, notes), assumptions=tuple(notes))
    if not lengths:
        raise Unstated("its context is not stated")
    # Every slot is busy, so a request has on average half of its output behind it.
    ends = len(lengths) > 1 and "out" in row["context"]
    context = lengths[0] + (lengths[1] // 2 if ends and decode else 0)
    if decode:
        if size is None or size[2] != "requests":
            raise Unstated("its requests per GPU are not stated")
        drafted = re.search(r"MTP ([0-9]+) draft", row.get("library", ""))
        drafts = row.get("draft_tokens") or (drafted[1] if drafted else str(int(size[3] or 1) - 1))
        settings |= {"workload.requests": int(size[1]), "workload.context": context}
        if drafts := int(float(drafts)):
            accepted = _accepted(row, drafts)
            if accepted is None:
                accepted = _ACCEPTANCE
                notes.append(f"acceptance not stated: {_ACCEPTANCE}")
            settings |= {"workload.draft_tokens": drafts, "workload.acceptance": accepted}
    else:
        tokens = int(size[1]) if size else _TOKENS
        if size is None:
            notes.append(f"batch not stated: {_TOKENS:,} tokens per GPU")
        settings |= {"workload.tokens_per_rank": tokens, "workload.sequence_length": context}
        if settings["schedule.overlap"] == "two-batch":
            sms = re.search(r"([0-9]+) SMs communicate", row.get("overlap", ""))
            settings["alltoall.sms"] = int(sms[1]) if sms else _SMS
            if sms is None:
                notes.append(f"SMs that communicate not stated: {_SMS}")
    redundant = row.get("redundant", "")
    if re.fullmatch("[0-9]+", redundant) and int(redundant):
        settings |= {"placement.policy": "eplb", "placement.redundant_experts": int(redundant)}
    elif redundant != "0":
        assert model is not None  # noqa: S101 - rows of other models are refused before
        least = -load_model(model).n_experts % ep
        notes.append(f"redundant experts not stated: {least}")
        if least:
            settings |= {"placement.policy": "eplb", "placement.redundant_experts": least}
    if "balanced" not in row.get("routing", "") or "EPLB" in row.get("routing", ""):
        notes.append("load of the ranks not stated: experts equally likely")
    if "fp8 attention" in row.get("dtype", "").lower():
        settings["compute.attention_dtype"] = "fp8"
        notes.append("no kernels of FP8 attention: estimated from BF16")
    if day := re.match(r"([0-9]{4})-([0-9]{2})(-[0-9]{2})?$", row.get("date", "")):
        settings["compute.library_date"] = day[0] if day[3] else f"{day[0]}-01"
    if "prefill mixed in" in row.get("metric", ""):
        notes.append("prefill between decode steps not modelled")
    return Step(row, settings, assumptions=tuple(notes))


def _cluster(row: dict[str, str], gpu: str, ep: int, notes: list[str]) -> dict[str, Any]:
    """Nodes of 8 on rails. What one row of a source says of its NICs, ``4 x 400 Gb/s``, holds for its others."""
    if ep <= 8:
        return {"cluster.topology": f"hgx-{gpu}"}
    nodes = -(-ep // 8)
    nics = re.match(r"([0-9]+) ?x ?([0-9]+) ?Gb/s", row.get("nics") or _nics_of_sources().get((row["source"], gpu), ""))
    if nics is None:
        notes.append("NICs not stated: one of 400 Gb/s for each GPU")
        return {"cluster.topology": f"{gpu}-{nodes}x8-rail"}
    return {
        "cluster.nodes": nodes, "cluster.gpus_per_node": 8, "cluster.gpu": gpu, "cluster.fabric": "rail",
        "cluster.nics_per_node": int(nics[1]), "cluster.nic_bandwidth": f"{nics[2]}Gb/s",
    }  # fmt: skip


@cache
def _nics_of_sources() -> dict[tuple[str, str], str]:
    return {(row["source"], row["gpu"].lower()): row["nics"] for row in shipped_lines(STEPS.name) if row["nics"]}


def _accepted(row: dict[str, str], drafts: int) -> float | None:
    """Accepted share of the drafted tokens, as a column, the engine's words or a note of accepted lengths say it."""
    if row.get("acceptance"):
        return float(row["acceptance"])
    if said := re.search(r"([0-9]+) % accepted", row.get("library", "")):
        return float(said[1]) / 100
    _, _, lengths = row.get("note", "").partition("accepted length")
    said_of = re.findall(r"([0-9.]+)-([0-9.]+) \(([0-9])", lengths)
    found = next(((float(low) + float(high)) / 2 for low, high, of in said_of if int(of) == drafts), None)
    return None if found is None else (found - 1) / drafts


def _overlap(said: str, decode: bool, notes: list[str]) -> str:
    if re.search(r"(two|dual)[- ](batch|micro)|micro-batches", said):
        return "two-batch"
    if decode and ("single-batch" in said or "combine overlaps" in said):
        return "single-batch"
    if said != "none":
        notes.append("overlap not stated: none" if not said else f"overlap as none: {said}")
    return "none"
