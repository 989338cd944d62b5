"""The blocks that say what arrives and when: workload and schedule."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from moesim.scenario.sections import Block, Name
from moesim.units import Count, Duration, Number, Share


class RecordingSource(Block):
    """Recorded router logits."""

    name: Name = Field(description="A recording by bare name (tiny-none, tiny-v1, tiny-v2, tiny-v3) or a path.")
    layers: tuple[Annotated[Count, Field(ge=0)], ...] | None = Field(
        None, min_length=1, description="MoE layers to simulate; null: all that were recorded."
    )
    step: Literal["last"] | Annotated[Count, Field(ge=0)] = Field(
        "last", description="Training step of the snapshot: last, or one of the recorded steps."
    )


class RoutingSource(Block):
    """Recorded routing in any recorder's form."""

    file: Name = Field(description="A file or folder as an engine, a trainer or `moesim routing import` wrote it.")
    layers: tuple[Annotated[Count, Field(ge=0)], ...] | None = Field(
        None, min_length=1, description="Layers to simulate; null: all that were recorded."
    )


def _file_alone(value: object) -> object:
    return {"file": value} if isinstance(value, str) else value


class _Synthetic(Block):
    correlation: Number = Field(
        0.0, ge=0, lt=1, description="Correlation between the noise of two tokens of one sequence."
    )
    sequence_length: Count = Field(256, ge=1, le=10**6, description="Tokens of one sequence.")


class Uniform(_Synthetic):
    """Every expert is equally popular."""

    kind: Literal["uniform"] = Field(description="Distribution of popularity over the experts.")


class Zipf(_Synthetic):
    """Popularity falls with the place of an expert to the power of -exponent."""

    kind: Literal["zipf"] = Field(description="Distribution of popularity over the experts.")
    exponent: Number = Field(1.0, ge=0, le=10, description="Exponent of the Zipf law.")


class Lognormal(_Synthetic):
    """Log popularity is normal."""

    kind: Literal["lognormal"] = Field(description="Distribution of popularity over the experts.")
    sigma: Number = Field(0.6, ge=0, le=10, description="Standard deviation of the log popularity.")


class OneHotRank(_Synthetic):
    """The experts of one rank are hot, all others equally popular."""

    kind: Literal["one_hot_rank"] = Field(description="Distribution of popularity over the experts.")
    ratio: Number = Field(2.0, gt=0, le=1000, description="Load of the hot rank's experts over the mean load.")
    hot_rank: Count = Field(0, ge=0, le=10**6, description="The rank whose experts are hot.")


def _one_or_many(value: object) -> str:
    if isinstance(value, dict | BaseModel):
        return "<distribution>"
    return "<list>" if isinstance(value, list | tuple) else "<one>"


Length = Annotated[Count, Field(ge=1, le=10**7)]
Lengths = (
    Annotated[
        Annotated[Length, Tag("<one>")]
        | Annotated[tuple[Length, ...], Field(min_length=1, max_length=1000), Tag("<list>")],
        Discriminator(_one_or_many),
    ]
    | None
)


class Workload(Block):
    """Which tokens arrive: one of routing, recording, synthetic, expert_ids and counts says where experts come from."""

    routing: Annotated[RoutingSource, BeforeValidator(_file_alone)] | None = Field(
        None, description="Recorded routing of any form: logits, expert ids or counts; a file, or a block with layers."
    )

    recording: RecordingSource | None = Field(
        None, description="Recorded router logits (default: tiny-KIND of the router's kind)."
    )
    synthetic: Annotated[Uniform | Zipf | Lognormal | OneHotRank, Field(discriminator="kind")] | None = Field(
        None, description="Synthetic router logits."
    )
    expert_ids: Name | None = Field(
        None, description="Recorded routing whose numbers are chosen experts: no router is run."
    )
    counts: Name | None = Field(
        None,
        description="Recorded routing whose numbers are tokens per expert: experts are drawn, no router is run.",
    )
    tokens_per_rank: (
        Annotated[
            Annotated[Annotated[Count, Field(ge=1, le=10**8)], Tag("<one>")]
            | Annotated[tuple[Annotated[Count, Field(ge=0, le=10**8)], ...], Tag("<list>")],
            Discriminator(_one_or_many),
        ]
        | None
    ) = Field(None, description="Tokens on each rank: one number, or one per rank; null: recorded tokens // ranks.")
    requests: Count | None = Field(
        None,
        ge=1,
        le=10**6,
        description="Decode: requests of each rank; a step is one token of each, drafts beside it.",
    )
    context: Lengths = Field(
        None, description="Decode: tokens that a request keeps, one number or a list that the requests share evenly."
    )
    sequence_length: Lengths = Field(
        None, description="Prefill: tokens of a prompt, one number or a list that the prompts share evenly."
    )
    draft_tokens: Count | None = Field(
        None, ge=1, le=16, description="Decode: tokens that multi-token prediction drafts for each request and step."
    )
    acceptance: Share | None = Field(
        None, ge=0, le=1, description="Accepted share of the drafted tokens (default: 0.6 where there are any)."
    )
    assign: Literal["by_sequence", "striped"] = Field(
        "by_sequence",
        description="by_sequence: whole sequences to a rank; striped: token i to rank i modulo the ranks.",
    )
    sampling: Literal["block_bootstrap"] = Field(
        "block_bootstrap", description="How more tokens than recorded are made: whole sequences drawn again."
    )
    domains: Literal["all"] | tuple[str, ...] | None = Field(
        None, description="Domains of text to draw from: names, or all; null: those the model was trained on."
    )
    layers_simulated: Count | None = Field(
        None, ge=1, le=10**4, description="MoE layers of a step; recorded layers are cycled. null: each once."
    )
    steps: Count = Field(1, ge=1, le=10**6, description="Batches simulated one after the other.")

    @property
    def of_step(self) -> bool:
        """Whether whole inference steps are simulated, attention and all layers with them."""
        return self.lengths != ()

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of the prompts, or what the requests keep; nothing where only MoE layers are simulated."""
        given = self.sequence_length if self.context is None else self.context
        return () if given is None else (given,) if isinstance(given, int) else given

    @property
    def query_tokens(self) -> int:
        """Tokens of a request in a decode step."""
        return 1 + (self.draft_tokens or 0)

    @property
    def gives_experts(self) -> bool:
        """Whether experts may be given rather than selected by the scenario's router."""
        return not (self.recording or self.synthetic)


class LognormalOffset(Block):
    """exp(sigma x standard normal) x scale."""

    distribution: Literal["lognormal"] = Field(description="Distribution of the arrivals.")
    sigma: Number = Field(gt=0, le=10, description="Standard deviation of the logarithm.")
    scale: Duration = Field(description="Median (seconds).")


class UniformOffset(Block):
    """Evenly between 0 and scale."""

    distribution: Literal["uniform"] = Field(description="Distribution of the arrivals.")
    scale: Duration = Field(description="Largest offset (seconds).")


class NormalOffset(Block):
    """Normal around mean; below 0 counts as 0."""

    distribution: Literal["normal"] = Field(description="Distribution of the arrivals.")
    mean: Duration = Field(description="Mean (seconds).")
    scale: Duration = Field(description="Standard deviation (seconds).")


class ExponentialOffset(Block):
    """Exponential."""

    distribution: Literal["exponential"] = Field(description="Distribution of the arrivals.")
    scale: Duration = Field(description="Mean (seconds).")


Offset = LognormalOffset | UniformOffset | NormalOffset | ExponentialOffset


class Schedule(Block):
    """When each rank arrives, and what else it does per layer."""

    phase: Literal["prefill", "decode"] = Field(
        "prefill",
        description="prefill (whole prompts) or decode (a token of each request); of MoE layers alone, a label.",
    )
    overlap: Literal["none", "two-batch", "single-batch", "hooks"] = Field(
        "none",
        description="none: one micro-batch, the shared expert beside dispatch. Of whole steps also two-batch "
        "(communication of one beside compute of the other), single-batch (decode: combine beside the down GEMM) and "
        "hooks (decode: sends and receives as kernels of their own).",
    )
    start_offset: Annotated[
        Annotated[Duration, Tag("<one>")]
        | Annotated[tuple[Duration, ...], Tag("<list>")]
        | Annotated[Annotated[Offset, Field(discriminator="distribution")], Tag("<distribution>")],
        Discriminator(_one_or_many),
    ] = Field(
        0.0,
        description="When each rank arrives after the first: 0us, one duration per rank, or a distribution.",
    )
    other_time: Duration = Field(
        0.0, description="Other work of every rank per layer, attention for example (seconds)."
    )
