"""The time of a whole inference step, what it is made of, and the tokens per second that it gives.

A rank's compute lane does one thing at a time, so along it the step is what it computed and where it stood still: there
communication shows. MoE layers repeat, so only the first are on the clock; those that are not take the same period,
measured between layers once the micro-batches are in step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesim.layer import Inference, Parts
from moesim.results import Note, Term, ratio
from moesim.stages import ATTENTION, KERNELS, STAGE, STEP
from moesim.timeline import LayerTrace
from moesim.traffic import Floats

_LABELS = {stage.name: stage.label for stage in (*KERNELS, *STEP)}
_GAPS = "communication that nothing hides"
_SHOWN = "seconds in which the compute lane waits for it"


@dataclass
class StepTime:
    """Collects the layers of one step after the other."""

    parts: Parts
    step: Inference
    # Of the step at hand, in the order of the traces: name, start and end of what ran on the compute lane, [ranks].
    _ran: list[tuple[str, Floats, Floats]] = field(default_factory=list)
    # Layer, and the seconds of its phases, [ranks].
    _moving: list[tuple[int, Floats]] = field(default_factory=list)
    _entries: dict[int, Floats] = field(default_factory=dict)
    _cycle: int = 1
    # Of every step: seconds by what they went to, seconds of communication and those that show.
    _spent: list[dict[str, float]] = field(default_factory=list)
    _shown: list[tuple[float, float]] = field(default_factory=list)
    _left: list[tuple[int, float]] = field(default_factory=list)

    def add_layer(self, trace: LayerTrace) -> None:
        """Take in a layer of a micro-batch."""
        for name, start in trace.start_s.items():
            if STAGE[name].lane == "compute":
                self._ran.append((name, start, trace.end_s[name]))
        self._ran += [(name, *span) for name, span in trace.beside.items()]
        self._moving += [(trace.layer, phase.leave_s - phase.enter_s) for phase in trace.phases.values()]
        if trace.micro_batch == 0:
            self._entries[trace.layer] = trace.entry_s

    def end_step(self, recorded: int) -> float:
        """Close a step of so many recorded layers in turn; returns its seconds, layers not on the clock with it."""
        self._cycle = recorded
        start, end = (np.array([span[side] for span in self._ran]) for side in (1, 2))
        rank = int(np.argmax(end.max(axis=0)))
        order = np.argsort(start, axis=0, kind="stable")
        begins, ends = np.take_along_axis(start, order, 0), np.take_along_axis(end, order, 0)
        idle_from, idle_to = np.maximum.accumulate(ends)[:-1], begins[1:]
        gaps = np.maximum(idle_to - idle_from, 0.0).sum(axis=0)
        spent = {"arrival": float(start.min(axis=0)[rank] - start.min())}
        for name, begin, finish in self._ran:
            label = _LABELS[name]
            spent[label] = spent.get(label, 0.0) + float(finish[rank] - begin[rank])
        spent[_GAPS] = float(gaps[rank])
        left, over, period_s = self._beyond(float(ends.max() - begins.min()))
        spent["layers beyond those simulated"] = left * period_s
        self._spent.append({name: seconds for name, seconds in spent.items() if seconds > 0})
        moving, shown = sum(float(seconds.sum()) for _, seconds in self._moving), float(gaps.sum())
        if over:
            last = max(self._entries)
            window = self._entries[last - over], self._entries[last]
            inside = np.minimum(idle_to, window[1]) - np.maximum(idle_from, window[0])
            again = left / over
            moving += again * sum(float(s.sum()) for layer, s in self._moving if last - over <= layer < last)
            shown += again * float(np.maximum(inside, 0.0).sum())
        self._shown.append((moving, shown))
        self._left.append((left, period_s))
        self._ran.clear()
        self._moving.clear()
        self._entries.clear()
        return sum(self._spent[-1].values())

    def _beyond(self, simulated_s: float) -> tuple[int, int, float]:
        """How many MoE layers of the model were not on the clock; over how many their period is taken, and that."""
        last = max(self._entries)
        left = max(self.step.moe_layers - last - 1, 0)
        # Whole cycles of the recorded layers, the first layer left out, in which the micro-batches fall into step.
        over = max(last - 1, 0) // self._cycle * self._cycle or last
        if not over:
            return left, 0, simulated_s
        return left, over, float((self._entries[last] - self._entries[last - over]).max()) / over

    @property
    def left_out(self) -> int:
        """MoE layers of a step that were not on the clock."""
        return self._left[0][0]

    @property
    def shown_share(self) -> float:
        """Share of the time in dispatch and combine in which a rank computes nothing meanwhile, over all ranks."""
        moving, gaps = (sum(side) for side in zip(*self._shown, strict=True))
        return min(gaps / moving, 1.0) if moving else 0.0

    @property
    def attention_share(self) -> float:
        """Share of the steps that core attention of the MoE layers takes on the rank that ends them."""
        on_clock_s = sum(spent.get(ATTENTION.label, 0.0) for spent in self._spent)
        layers = self.step.moe_layers / (self.step.moe_layers - self.left_out)
        return on_clock_s * layers / sum(sum(spent.values()) for spent in self._spent)

    def band_weight(self, simulated: int) -> float:
        """By what seconds in phases of the simulated layers count in the step: those that show, of all layers."""
        return self.shown_share * self.step.moe_layers / simulated

    def notes(self) -> Iterator[Note]:
        """Say what of the step was not on the clock, and what its constants are."""
        if self.left_out:
            of_all = f"{self.step.moe_layers - self.left_out} of {self.step.moe_layers} MoE layers"
            yield Note("info", f"{of_all} were on the clock: the others take the period of these")
        yield Note("estimated", "hooks, launches, host and small kernels of a step are constants: docs/steps.md")
        if not self.step.decode:
            yield Note("info", "a prefill step without the queue before it")

    def numbers(self, step_s: float, tokens: int) -> dict[str, Any]:
        """Return the summary's numbers of a step of ``step_s`` seconds and ``tokens`` over all ranks."""
        rates = self._tokens(tokens)
        return {
            **{key: kept / step_s for key, (kept, _) in rates.items()},
            "tpot_s": step_s / self._per_request if self.step.decode else None,
            "communication_hidden_share": 1.0 - self.shown_share,
            "layer_period_s": float(np.mean([period for _, period in self._left])),
            "memory_free_bytes": None if self.parts.memory is None else self.parts.memory.free,
            "model_layers": self.step.moe_layers + self.step.plain_layers,
        }

    @property
    def _per_request(self) -> float:
        return self.step.query_tokens * self.step.tokens_kept

    def _tokens(self, tokens: int) -> dict[str, tuple[float, str]]:
        """Tokens that count by the number that they give: of all ranks, of a full node, of a GPU; and in words."""
        fabric, kept = self.parts.fabric, tokens * (self.step.tokens_kept if self.step.decode else 1.0)
        what = "output tokens: one for each request and the drafts accepted" if self.step.decode else "input tokens"
        nodes = {"": 1.0, "_per_node": fabric.n_ranks / fabric.ranks_per_node, "_per_gpu": float(fabric.n_ranks)}
        return {f"tokens_per_second{of}": (kept / parts, what) for of, parts in nodes.items()}

    def terms(self, summary: Mapping[str, Any]) -> dict[str, list[Term]]:
        """Return the terms of the numbers of a step, and of its time."""
        count, step_s = len(self._spent), summary["step_time_s"]
        names = dict.fromkeys(name for spent in self._spent for name in spent)
        said = {
            _GAPS: "the compute lane of the rank that ends the step stands still: a phase or another rank is awaited",
            "layers beyond those simulated": f"{self.left_out} MoE layers x the period of those simulated",
        }
        of_step = [
            Term(
                name=name,
                value=sum(spent.get(name, 0.0) for spent in self._spent) / count,
                unit="s",
                formula=said.get(name, "on the compute lane of the rank that ends the step, both micro-batches"),
                source="simulated",
            )
            for name in names
        ]
        found = {"step_time_s": of_step}
        for key, (kept, what) in self._tokens(summary["tokens"]).items():
            found[key] = ratio((what, kept), ("step_time_s", step_s), "", "s")
        if self.step.decode:
            found["tpot_s"] = ratio(
                ("step_time_s", step_s), ("tokens of a request in a step", self._per_request), "s", ""
            )
        moving, gaps = (sum(side) for side in zip(*self._shown, strict=True))
        if moving > 0:
            hidden = ("seconds of dispatch and combine beside compute", max(moving - gaps, 0.0))
            found["communication_hidden_share"] = ratio(hidden, ("seconds of dispatch and combine", moving), "s", "s")
        periods = [
            Term(
                name=f"step {i}",
                value=period,
                unit="s",
                formula="between starts of layers",
                source="simulated",
                combine="mean",
            )
            for i, (_, period) in enumerate(self._left)
        ]
        found["layer_period_s"] = periods
        if self.parts.memory is not None:
            found["memory_free_bytes"] = [
                Term(name=name, value=size, unit="B", formula="", source="model: moesim model --context")
                for name, size in self.parts.memory.parts().items()
            ]
        layers = {"MoE layers": self.step.moe_layers, "layers without experts": self.step.plain_layers}
        found["model_layers"] = [
            Term(name=name, value=float(value), unit="", formula="", source="model") for name, value in layers.items()
        ]
        return found
