"""What a published training step says of a scenario: its parallelism, its micro-batches, the order of its pipeline."""

import re
from typing import Any

# Stated in DeepSeek-V3's report (3.2.2 and 3.2.3), not in every row about it.
_REPORT = {"alltoall.sms": 20, "schedule.recompute": "selective", "compute.library_date": "2024-12-01"}
_LAYERS = {"4 layers": "whole", "61/16": "even"}


class Unstated(Exception):
    """What a row does not say and nothing can stand for."""


def training_settings(row: dict[str, str], notes: list[str]) -> dict[str, Any]:
    """Return the settings of a training row; what it does not state goes to ``notes`` with what was taken.

    Raises:
        Unstated: no parallelism, batch or context.
    """
    pp = _whole(row.get("pp", "").replace("-", "") or "1", "ranks of a pipeline")
    gpus, ep = _whole(row["gpus"], "GPUs"), _whole(row["ep"], "EP")
    context, batch = re.search(r"[0-9]+", row["context"]), re.search(r"global batch ([0-9][0-9,]*)", row["per_gpu"])
    if context is None or batch is None:
        raise Unstated("its global batch or context is not stated")
    stages = gpus // pp
    if stages % ep or not stages:
        raise Unstated(f"{stages} GPUs of a stage are no whole groups of {ep}")
    length, each = int(context[0]), _micro_batch(row["per_gpu"], pp, notes)
    settings: dict[str, Any] = {
        "parallel.dp": stages,
        "parallel.pp": pp,
        "workload.tokens_per_rank": each * length,
        "workload.sequence_length": length,
        "schedule.pipeline": _pipeline(row.get("overlap", ""), pp, notes),
        "schedule.micro_batches": max(int(batch[1].replace(",", "")) // (stages * each), 1),
        "schedule.mtp_layers": 0 if "without MTP" in row["model"] else None,
    }
    if row["library"].startswith("DeepSeek internal"):
        notes.append("20 SMs, what is computed again and kernels of 2024 as in its report of that year")
        settings |= _REPORT
    else:
        notes.append("what is computed again not stated: nothing")
        if "DeepEP" not in row["library"]:
            notes.append("all-to-all not stated: deepep-normal")
    if row["routing"].startswith("real"):
        notes.append("load of the ranks not stated: that of a small router balanced by its bias, tiny-v3")
        settings["workload.recording"] = {"name": "tiny-v3"}
    elif not row["routing"]:
        notes.append("load of the ranks not stated: experts equally likely")
    return settings


def _whole(text: str, what: str) -> int:
    if re.fullmatch("[0-9]+", text) is None or int(text) < 1:
        raise Unstated(f"its {what} are not stated")
    return int(text)


def readings(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the readings of how layers lie on stages, by name; one without a name where that is no question."""
    if not settings["schedule.pipeline"].startswith("dualpipe"):
        return {"": settings}
    return {name: settings | {"schedule.stage_layers": layers} for name, layers in _LAYERS.items()}


def _micro_batch(said: str, pp: int, notes: list[str]) -> int:
    """Sequences of a micro-batch."""
    if found := re.search(r"micro-batch ([1-9][0-9]*) x", said):
        return int(found[1])
    if found := re.search(r"local batch ([1-9][0-9]*)", said):
        if pp > 1:
            raise Unstated("its micro-batch is not stated")
        notes.append(f"micro-batch not stated: the local batch of {found[1]}")
        return int(found[1])
    if "per micro-batch" not in said:
        notes.append("micro-batch not stated: one sequence")
    return 1


def _pipeline(said: str, pp: int, notes: list[str]) -> str:
    if pp == 1:
        return "none"
    if "dualpipe" in said.lower():
        return "dualpipe"
    if found := re.search(r"VP ([0-9]+)", said):
        notes.append(f"stages in {found[1]} interleaved parts not simulated: plain 1F1B")
    return "1f1b"
