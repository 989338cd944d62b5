"""The time of a training step: one group's passes on the clock, the ranks of a pipeline at their tasks, the update.

Two levels. The MoE layers of a stage run on one expert-parallel group exactly, forward and back, alone and beside each
other; what they take are the durations of the tasks of a pipeline, which runs on a clock of its own. All pipelines and
groups are alike. Gradients are reduced, weights updated and gathered when the slowest rank has ended.

Model FLOPs are 6 for each weight that a token passes through, the embedding left out, and 3 times those of causal core
attention forward; multi-token prediction and what is computed again do not count. MFU is these over the BF16 peak of
all GPUs (DeepSeek's "causal MFU"); the non-causal one counts attention to all tokens.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.layer import Inference, Parts, StepPrices, Training, dense_layer, output_head, prediction_layer
from moesim.measure.gradient_update import port_rate, update_seconds
from moesim.measure.pipeline_stages import Stage, StageCosts, chunk_of, stages_of
from moesim.model import ModelSpec, attention_work
from moesim.results import Note, TableBuilder, Term, combined, ratio
from moesim.timeline import PIPELINES, LayerTrace, Ran, run_pipeline

_DAY_S = 86400.0
_WORDS = {"forward": "forward", "backward": "backward", "input": "backward, inputs", "weights": "backward, weights"}
_PAIR, _BUBBLE = "forward beside backward", "bubble"
_SAID = {
    "": "on the rank of the pipeline that has most to do",
    _BUBBLE: "until the last rank has ended its last pass, that rank does nothing",
    "gradients reduced": "FP32, scattered over all copies of a weight, at a share of the port's peak",
    "weights gathered": "BF16, from all copies of a weight",
    "optimizer": "bytes of the rank's part of the weights at a share of the memory's peak",
}


@dataclass
class TrainingTime:
    """Collects the layers of one step after the other."""

    parts: Parts
    step: Inference
    training: Training
    tokens: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    """Of a micro-batch on every rank, [ranks]."""
    alone: Sequence[LayerTrace] = ()
    """Both passes in turn, where the layers taken in overlap."""
    ran: list[Ran] = field(default_factory=list)
    """Tasks of the last step."""
    _traces: list[LayerTrace] = field(default_factory=list)
    _spent: list[dict[str, float]] = field(default_factory=list)
    _shown: list[tuple[float, float]] = field(default_factory=list)
    _costs: StageCosts | None = None

    def add_layer(self, trace: LayerTrace) -> None:
        """Take in a layer of a pass."""
        self._traces.append(trace)

    def end_step(self, recorded: int) -> float:
        """Close a step; returns its seconds."""
        training, prices, tokens = self.training, StepPrices(self.parts, self.step), self.tokens
        main = chunk_of(self._traces, training.overlapped)
        alone, pair = (chunk_of(self.alone, False), main) if training.overlapped else (main, None)
        dense, head, prediction = (price(prices, tokens) for price in (dense_layer, output_head, prediction_layer))
        self._costs = costs = StageCosts([], alone, pair, dense, head, prediction)
        costs.stages = stages = stages_of(self.step, training, costs)
        order = PIPELINES[training.pipeline](training.ranks, training.micro_batches)
        self.ran = run_pipeline(order, costs.seconds, self._send_s())
        self._close(costs, stages)
        self._traces.clear()
        return sum(self._spent[-1].values())

    def _close(self, costs: StageCosts, stages: Sequence[Stage]) -> None:
        end = max(one.end_s for one in self.ran)
        by_rank: dict[int, dict[str, float]] = {}
        held: dict[int, set[int]] = {}
        for one in self.ran:
            name = _PAIR if len(one.task) > 1 else _WORDS[one.task[0].kind]
            spent = by_rank.setdefault(one.rank, {})
            spent[name] = spent.get(name, 0.0) + one.end_s - one.start_s
            held.setdefault(one.rank, set()).update(of.stage for of in one.task)
        rank = max(by_rank, key=lambda one: (sum(by_rank[one].values()), -one))
        spent = {name: by_rank[rank][name] for name in (_PAIR, *_WORDS.values()) if name in by_rank[rank]}
        # One rank waits for nobody; the difference would be rounding, of either sign.
        spent[_BUBBLE] = end - sum(spent.values()) if len(by_rank) > 1 else 0.0
        updates = [
            update_seconds(self.parts, self.step, self.training, [stages[of] for of in own], float(0 in own))
            for own in held.values()
        ]
        self._spent.append(spent | max(updates, key=lambda one: sum(one.values())))
        self._shown.append(costs.communication())

    def _send_s(self) -> float:
        """A micro-batch from one stage to the next, in BF16."""
        rate = port_rate(self.parts.fabric, "nic") * self.step.constants.collective_share
        return float(self.tokens.max()) * self.step.spec.hidden * 2 / rate

    @property
    def shown_share(self) -> float:
        """Share of the time in dispatch and combine in which a rank computes nothing meanwhile, over the whole step."""
        moving, shown = (sum(side) for side in zip(*self._shown, strict=True))
        return min(shown / moving, 1.0) if moving else 0.0

    def band_weight(self, simulated: int) -> float:
        """By what seconds in phases of the simulated layers count in the step: those that show, of all passes."""
        training = self.training
        return self.shown_share * 2 * training.micro_batches * self.step.moe_layers / training.ranks / simulated

    def notes(self) -> Iterator[Note]:
        """Say what the step rests on."""
        yield Note("estimated", "kernels on the way back, reductions and the optimizer of a step: docs/training.md")
        yield Note("info", "one expert-parallel group is simulated, the others of the step are taken to be alike")

    def explained(self) -> dict[str, Any]:
        """What the last step's pipeline was made of, as plain data."""
        costs = self._costs
        assert costs is not None  # noqa: S101 - a run has a step at least
        parts = {"dense layer": costs.dense, "output head": costs.head, "token prediction": costs.prediction}
        return {
            "pipeline": self.training.pipeline,
            "stages": [stage._asdict() for stage in costs.stages],
            "chunk_layers": costs.alone.layers,
            "chunk_s": costs.alone.passes._asdict(),
            "pair_s": costs.pair and costs.pair.passes.forward,
            "pair_hidden_share": costs.pair and costs.pair.hidden_share,
            "others_s": {name: passes._asdict() for name, passes in parts.items()},
            "send_s": self._send_s(),
        }

    def numbers(self, step_s: float, tokens: int) -> dict[str, Any]:
        """Return the summary's numbers of a step of ``step_s`` seconds and ``tokens`` of a group's micro-batch."""
        found: dict[str, Any] = {key: combined(terms) for key, terms in self._terms(step_s, tokens).items()}
        whole = {key: round(found[key]) for key in ("gpus", "model_layers")}
        return {"tpot_s": None, "layer_period_s": None, "communication_hidden_share": 0.0} | found | whole

    def terms(self, summary: Mapping[str, Any]) -> dict[str, list[Term]]:
        """Return the terms of the numbers of a step, and of its time."""
        return self._terms(summary["step_time_s"], summary["tokens"])

    def _terms(self, step_s: float, tokens: int) -> dict[str, list[Term]]:
        training, spec, fabric = self.training, self.step.spec, self.parts.fabric
        counts: dict[str, dict[str, float]] = {
            "gpus": {
                "of a group": fabric.n_ranks, "groups of a stage": training.groups, "pipeline ranks": training.ranks,
            },
            "step_tokens": {
                "of a group's micro-batch": tokens, "micro-batches": training.micro_batches, "groups": training.groups,
            },
        }  # fmt: skip
        gpus, of_step = (math.prod(parts.values()) for parts in counts.values())
        each, peak = of_step / gpus, self.parts.kernels.gpu.bf16_flops
        causal, full = (model_flops(spec, self.step.lengths, mask) * each for mask in (True, False))
        moving, shown = (sum(side) for side in zip(*self._shown, strict=True))
        names = dict.fromkeys(name for spent in self._spent for name in spent)
        spent = {name: sum(one.get(name, 0.0) for one in self._spent) / len(self._spent) for name in names}
        over_step = {
            "tokens_per_second": ("tokens of a step", of_step),
            "tokens_per_second_per_node": ("of a node", each * fabric.ranks_per_node),
            "tokens_per_second_per_gpu": ("of a GPU", each),
            "tokens_per_day": ("tokens of a step in a day", of_step * _DAY_S),
            "model_flops_per_second_per_gpu": ("model FLOPs of a GPU", causal),
            "mfu": ("model FLOPs of a GPU over its BF16 peak", causal / peak),
            "mfu_non_causal": ("model FLOPs of a GPU over its BF16 peak", full / peak),
            "pipeline_bubble_share": ("seconds of the bubble", spent[_BUBBLE]),
        }
        found = {key: ratio(above, ("step_time_s", step_s), "", "s") for key, above in over_step.items()}
        if moving > 0:
            hidden = ("seconds of dispatch and combine beside compute", max(moving - shown, 0.0))
            found["communication_hidden_share"] = ratio(hidden, ("seconds of dispatch and combine", moving), "s", "s")
        for key, parts in counts.items():
            found[key] = [
                Term(name=name, value=float(value), unit="", formula="", source="scenario", combine="product")
                for name, value in parts.items()
            ]
        layers = {"layers": spec.layers, "of multi-token prediction": training.mtp_layers}
        found["model_layers"] = [
            Term(name=name, value=float(value), unit="", formula="", source="model") for name, value in layers.items()
        ]
        found["step_time_s"] = [
            Term(name=name, value=value, unit="s", formula=_SAID.get(name, _SAID[""]), source="simulated")
            for name, value in spent.items()
        ]
        return found


def model_flops(spec: ModelSpec, lengths: Sequence[int], causal: bool = True) -> float:
    """Return the FLOPs of a token forward and back, sequences of ``lengths`` taken evenly.

    6 for each weight that it passes through, 3 times those of core attention forward. 250 GFLOPs for DeepSeek-V3 at
    4,096 tokens (arXiv:2505.09343, table 2).
    """
    tables = 0 if spec.tied else spec.vocab * spec.hidden
    pairs = 0.0
    for one in spec.attentions:
        each = [attention_work(one, 0, length, "unabsorbed").pairs_flops / length for length in lengths]
        pairs += len(one.layers) * sum(each) / len(each)
    if not causal:  # half of the pairs are masked
        mean = sum(lengths) / len(lengths)
        pairs *= 2 * mean / (mean + 1)
    return 6.0 * (spec.active_parameters - tables) + 3.0 * pairs


def add_pipeline_rows(tables: TableBuilder, step: int, ran: Sequence[Ran]) -> None:
    """Add a step's passes to ``pipeline``: one row for each, two of the same time where they overlap."""
    rows = [(at, one) for at in ran for one in at.task]
    tables.add(
        "pipeline",
        step=step,
        rank=np.array([at.rank for at, _ in rows], np.int32),
        kind=[one.kind for _, one in rows],
        stage=np.array([one.stage for _, one in rows], np.int32),
        micro_batch=np.array([one.micro_batch for _, one in rows], np.int32),
        overlapped=np.array([len(at.task) > 1 for at, _ in rows], np.int32),
        start_s=np.array([at.start_s for at, _ in rows]),
        end_s=np.array([at.end_s for at, _ in rows]),
    )
