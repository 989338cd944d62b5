"""The block of a sweep: its axes and what is compared along them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from moesim.mistakes import Mistakes, did_you_mean
from moesim.scenario.axes import parse_axis
from moesim.scenario.sections import Block
from moesim.units import Count


class RandomPoints(Block):
    """Points drawn from all combinations instead of every one."""

    points: Count = Field(ge=1, le=100_000, description="How many combinations are drawn, each at most once.")
    seed: Count = Field(0, ge=0, lt=2**63, description="Seed of the draw.")


AxisValues = Annotated[tuple[Any, ...], BeforeValidator(parse_axis)]


class Sweep(Block):
    """Axes of a sweep and what is compared along them."""

    question: str | None = Field(
        None, max_length=300, description="The question that the sweep answers, in words: the first line of its report."
    )
    axes: dict[str, AxisValues] = Field(
        default_factory=dict,
        description="Dotted key: its values, a list or a range such as 1..8; every combination is one point.",
    )
    zip: tuple[dict[str, AxisValues], ...] = Field(
        (),
        description="Keys that move together: each entry is one axis, with as many values for each of its keys.",
    )
    random: RandomPoints | None = Field(None, description="Draw points from the combinations; null: all of them.")
    objective: str | None = Field(
        None,
        description="The summary number to minimise (max KEY: maximise), and limits that the best point must "
        "keep: layer_time_s where gate_mass_lost < 0.01 and rank_load_max_over_mean < 1.3 "
        "(default: layer_time_s; of whole steps max tokens_per_second_per_gpu).",
    )
    per: tuple[str, ...] = Field(
        (), description="Keys of axes: the best point is also listed for each combination of their values."
    )
    impossible: Literal["refuse", "skip"] = Field(
        "refuse", description="Combinations that make no valid scenario: run nothing, or leave them out."
    )

    @field_validator("question")
    @classmethod
    def _one_line(cls, question: str | None) -> str | None:
        """Keep what a terminal could take for a command out of it; broken lines are one line."""
        if question is None:
            return None
        question = " ".join(question.split())
        if not question or not question.isprintable():
            raise Mistakes(((), "not a line of printable text", "write the question in words"))
        return question

    @model_validator(mode="after")
    def _per_axis(self) -> "Sweep":
        keys = [*self.axes, *(key for group in self.zip for key in group)]
        found = [
            (("per", i), f"{key!r:.80} is not an axis of this sweep", did_you_mean(key, keys))
            for i, key in enumerate(self.per)
            if key not in keys
        ]
        if found:
            raise Mistakes(*found)
        return self
