"""Measured rows of the reference tables, by family and GPU, in the units and loads that the models take.

Column semantics. InferSim names the *nominal* tokens per expert, te; the loads were drawn as int(te U(0.7, 1.3)),
so that the true number of rows follows from the printed utilisation, M = mfu peak t / (2 N K). aiconfigurator's
``num_tokens`` counts the tokens of all ranks and its times are those of the fullest rank. A key that stands in a
table twice (the H100 MLA tables repeat all of theirs) counts once, with the mean of its times.

Left out, each by a rule: see `EXCLUSIONS`.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compute.gpus import load_gpu
from moesim.compute.roofline import Floats
from moesim.errors import InputError

Ints = NDArray[np.int64]
Row = dict[str, str]

AICONFIGURATOR = "ai-dynamo/aiconfigurator @ 095f58a"
INFERSIM = "alibaba/InferSim @ f2293da"
POWER_LAW = "power_law_"

EXCLUSIONS = {
    "deepep_context": "uniform rows under 128 tokens per expert: the collector fills only ceil(pairs / 128) experts",
    "fused_moe": "uneven loads (power_law_*), and balanced DeepSeek-V3 fp8 rows without expert parallelism: most of "
    "them are faster than their weights can be read",
    "trtllm_wideep": "not fitted: no loads per expert, no balanced rows, one step in ten gets faster with more tokens",
    "deepep_eplb": "not fitted: the tables do not say how experts were replicated",
}


@dataclass(frozen=True)
class Rows:
    """Rows of one family on one GPU.

    ``shape[rows]`` names the part that is held out together, ``variant[rows]`` the set of coefficients that prices a
    row, ``seconds[rows]`` the measured time. ``ints`` holds what the model needs, [rows] each; ``loads[rows, slots]``
    the tokens of each expert of the rank. ``exponent[rows]``: 0 for even loads, otherwise that of the power law.
    """

    family: str
    gpu: str
    source: str
    shape: list[str]
    variant: list[str]
    seconds: Floats
    ints: dict[str, Ints]
    loads: Ints
    exponent: Floats

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.seconds)

    def where(self, keep: NDArray[np.bool_]) -> "Rows":
        """Return the rows where ``keep[rows]``."""
        at = np.flatnonzero(keep)
        return replace(
            self,
            shape=[self.shape[i] for i in at],
            variant=[self.variant[i] for i in at],
            seconds=self.seconds[at],
            ints={name: values[at] for name, values in self.ints.items()},
            loads=self.loads[at],
            exponent=self.exponent[at],
        )


_Key = tuple[str, str, tuple[tuple[str, int], ...], tuple[int, ...], float]
"""Of a row: shape, variant, what the model needs, loads and exponent."""


class _Draft:
    """Rows while they are read: the times of each key, of which the mean counts."""

    def __init__(self) -> None:
        self.times: dict[_Key, list[float]] = {}

    def add(
        self, shape: str, seconds: float, ints: dict[str, int], variant: str = "", loads: Sequence[int] = (),
        exponent: float = 0.0,
    ) -> None:  # fmt: skip
        self.times.setdefault((shape, variant, tuple(ints.items()), tuple(loads), exponent), []).append(seconds)

    def close(self, family: str, gpu: str, source: str) -> Rows:
        keys = list(self.times)
        loads = np.zeros((len(keys), max((len(own) for *_, own, _ in keys), default=0)), dtype=np.int64)
        for at, (*_, own, _) in enumerate(keys):
            loads[at, : len(own)] = own
        names = dict(keys[0][2]) if keys else {}
        return Rows(
            family,
            gpu,
            source,
            [shape for shape, *_ in keys],
            [variant for _, variant, *_ in keys],
            np.array([float(np.mean(times)) for times in self.times.values()]),
            {name: np.array([dict(ints)[name] for _, _, ints, *_ in keys], dtype=np.int64) for name in names},
            loads,
            np.array([exponent for *_, exponent in keys]),
        )


def _table(reference: Path, name: str) -> Iterator[Row]:
    file = reference / "kernels" / name
    if not file.is_file():
        raise InputError("no such reference table", str(file), "give the folder that holds kernels/*.csv")
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def nominal_loads(per_expert: int, experts: int, total: int) -> list[int]:
    """Return loads as InferSim drew them, int(te U(0.7, 1.3)), evenly spread over U and shifted to sum to ``total``.

    Exact for one expert; for many the tiles are those of the average draw.
    """
    at = 0.7 + 0.6 * (np.arange(experts) + 0.5) / experts
    loads = (per_expert * at).astype(np.int64)
    missing = total - int(loads.sum())
    share, rest = divmod(missing, experts)
    loads = loads + share
    loads[: int(rest)] += 1
    while (below := loads < 0).any():  # a draw so low that a shift would leave an expert with less than nothing
        short = int(-loads[below].sum())
        loads[below] = 0
        order = np.flatnonzero(loads > 0)[:short]
        loads[order] -= 1
        short -= len(order)
        if short > 0:
            loads[int(loads.argmax())] -= short
    return [int(load) for load in loads]


def _grouped(draft: _Draft, row: Row, gpu: str, prefill: bool) -> None:
    """DeepGEMM's masked layout (decode) or contiguous one (prefill), FP8: up and down, one row each."""
    peak = load_gpu(gpu).fp8_flops
    experts, hidden, inter = (int(row[c]) for c in ("num_local_experts", "hidden_size", "intermediate_size"))
    nominal = int(row["tokens_per_expert"])
    for name, n, k in (("up", 2 * inter, hidden), ("down", hidden, inter)):
        seconds = float(row[f"{name}_proj_us"]) * 1e-6
        total = round(float(row[f"{name}_mfu"]) * peak * seconds / (2 * n * k))
        tiles = -(-np.array(nominal_loads(nominal, experts, nominal * experts)) // 128)
        # Some prefill rows print the utilisation of the padded rows: whole tiles of 128.
        padded = prefill and abs(total - 128 * tiles.sum()) < abs(total - nominal * experts)
        loads = nominal_loads(nominal, experts, nominal * experts if padded else max(total, 1))
        ints = {"n": n, "k": k, "experts": experts, "nominal": nominal, "number": len(draft.times)}
        draft.add(f"experts={experts} hidden={hidden} inter={inter}", seconds, ints, loads=loads)


def _dense(draft: _Draft, row: Row, gpu: str) -> None:
    """DeepGEMM's dense GEMM, FP8."""
    m, n, k = (int(row[c]) for c in "mnk")
    draft.add(f"n={n} k={k}", float(row["latency_us"]) * 1e-6, {"n": n, "k": k}, loads=[m])


def _deepep(draft: _Draft, row: Row, gpu: str, context: bool) -> None:
    """The whole expert MLP after a low-latency dispatch, or (``context``) after a normal one; DeepSeek-V3, FP8."""
    if row["op_name"] != ("moe_context" if context else "moe_generation"):
        return
    ints = _moe_sizes(row)
    tokens, ranks, top_k, n_experts = (ints[name] for name in ("tokens", "ranks", "top_k", "experts"))
    local = n_experts // ranks
    per_expert, pairs = tokens * top_k / n_experts, tokens * top_k // ranks
    drawn = row["distribution"].startswith(POWER_LAW)
    if context and not drawn and per_expert < 128:
        return
    loads = [0] * local if drawn else [int(per_expert)] * local
    if not drawn and per_expert < 1:
        loads = [1] * pairs + [0] * (local - pairs)
    exponent = float(row["distribution"].removeprefix(POWER_LAW)) if drawn else 0.0
    draft.add(f"ranks={ranks}", float(row["latency"]) * 1e-3, ints, loads=loads, exponent=exponent)


def _moe_sizes(row: Row) -> dict[str, int]:
    columns = {"tokens": "num_tokens", "ranks": "moe_ep_size", "top_k": "topk", "experts": "num_experts",
               "hidden": "hidden_size", "inter": "inter_size"}  # fmt: skip
    return {name: int(row[column]) for name, column in columns.items()}


def _mla(draft: _Draft, row: Row, gpu: str, prefill: bool) -> None:
    """Absorbed MLA (576 / 512 per head), decode or prefill, cache in BF16 or FP8 (the variant)."""
    batch, length, step = (int(row[c]) for c in ("batch_size", "isl", "step"))
    cache = {"bfloat16": "bf16", "fp8": "fp8"}[row["kv_cache_dtype"]]
    ints = {"batch": batch, "kv_len": length + step, "q_len": length, "heads": int(row["num_heads"])}
    draft.add(f"length={length}" if prefill else f"batch={batch}", float(row["latency"]) * 1e-3, ints, cache)


def _mha_prefill(draft: _Draft, row: Row, gpu: str) -> None:
    """MLA prefill in multi-head form (192 / 128 per head), one causal sequence, BF16."""
    length = int(row["seq_len"])
    ints = {"batch": 1, "kv_len": length, "q_len": length, "heads": 128}
    draft.add(f"length={length}", float(row["latency_us"]) * 1e-6, ints, "bf16")


def _flashmla(draft: _Draft, row: Row, gpu: str) -> None:
    """FlashMLA's absorbed decode, BF16."""
    batch = int(row["batch_size"])
    ints = {"batch": batch, "kv_len": int(row["kv_len"]), "q_len": 1, "heads": 128}
    draft.add(f"batch={batch}", float(row["latency_us"]) * 1e-6, ints, row["kv_dtype"])


def _fused(draft: _Draft, row: Row, gpu: str) -> None:
    """SGLang's fused Triton MoE over balanced loads; one variant per model, number format and ranks."""
    dtype, ints = {"fp8_block": "fp8", "bfloat16": "bf16"}[row["moe_dtype"]], _moe_sizes(row)
    hidden, ranks = ints["hidden"], ints["ranks"]
    if row["distribution"] == "balanced" and (hidden, dtype, ranks) != (7168, "fp8", 1):
        variant = f"{dtype} {hidden}x{ints['inter']} ranks={ranks}"
        draft.add(f"tokens={ints['tokens']}", float(row["latency"]) * 1e-3, ints, variant)


class Reader(NamedTuple):
    """Where a family's rows are, on which GPUs, who published them, and what reads one of them."""

    file: str
    gpus: tuple[str, ...]
    source: str
    add: Callable[[_Draft, Row, str], None]


_DEEPEP = "aic_wideep_moe_grouped_gemm_dsv3_h100_h200.csv"
READERS = {
    "grouped_masked": Reader(
        "infersim_{gpu}_grouped_gemm_decode.csv", ("h800", "h20"), f"{INFERSIM}, grouped_gemm decode",
        partial(_grouped, prefill=False),
    ),
    "grouped_contiguous": Reader(
        "infersim_{gpu}_grouped_gemm_prefill.csv", ("h800", "h20"), f"{INFERSIM}, grouped_gemm prefill",
        partial(_grouped, prefill=True),
    ),
    "dense_gemm": Reader("infersim_{gpu}_gemm.csv", ("h800",), f"{INFERSIM}, gemm", _dense),
    "deepep_generation": Reader(
        _DEEPEP, ("h100", "h200"), f"{AICONFIGURATOR}, wideep_generation_moe_perf", partial(_deepep, context=False)
    ),
    "deepep_context": Reader(
        _DEEPEP, ("h100", "h200"), f"{AICONFIGURATOR}, wideep_context_moe_perf", partial(_deepep, context=True)
    ),
    "mla_decode": Reader(
        "aic_mla_decode_kernel_h100_h200.csv", ("h100", "h200"), f"{AICONFIGURATOR}, generation_mla_perf",
        partial(_mla, prefill=False),
    ),
    "flashmla_decode": Reader(
        "infersim_{gpu}_mla_decode_128h_512_64.csv", ("h800", "h20"), f"{INFERSIM}, mla decode 128 heads 512 / 64",
        _flashmla,
    ),
    "mla_prefill": Reader(
        "aic_mla_prefill_kernel_h100_h200.csv", ("h100", "h200"), f"{AICONFIGURATOR}, context_mla_perf",
        partial(_mla, prefill=True),
    ),
    "mha_prefill": Reader(
        "infersim_{gpu}_mla_prefill_128h.csv", ("h800",), f"{INFERSIM}, mha prefill 128 heads 192 / 128", _mha_prefill
    ),
    "fused_moe": Reader(
        "aic_sglang_fused_moe_h100_h200.csv", ("h100", "h200"), f"{AICONFIGURATOR}, moe_perf (sglang 0.5.14)", _fused
    ),
}  # fmt: skip


def read(reference: Path, family: str, gpu: str) -> Rows:
    """Return the rows of ``family`` on ``gpu`` from the tables in ``reference``. Raises InputError without them."""
    reader, draft = READERS[family], _Draft()
    for row in _table(reference, reader.file.format(gpu=gpu)):
        if "{gpu}" in reader.file or gpu.upper() in row["device"].split():
            reader.add(draft, row, gpu)
    return draft.close(family, gpu, reader.source)
