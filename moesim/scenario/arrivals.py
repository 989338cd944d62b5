"""The blocks that say what arrives and when: workload and schedule."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from moesim.mistakes import Loc, Mistakes
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


_KIND = "Distribution of popularity over the experts, or the rule that deals them."
_RATIO = "Load of the hot rank's or node's experts over the mean load."
_SEQUENCE = "Tokens of one sequence."
SKEW_FIGURES = ("max_violation", "balancedness", "rank_load_max_over_mean")


class _Noise(Block):
    correlation: Number = Field(
        0.0, ge=0, lt=1, description="Correlation between the noise of two tokens of one sequence."
    )
    sequence_length: Count = Field(256, ge=1, le=10**6, description=_SEQUENCE)


class _Popularity(_Noise):
    layer_correlation: Number = Field(
        0.0, ge=0, le=1, description="Correlation of an expert's log popularity between a layer and the next."
    )
    step_correlation: Number = Field(
        1.0, ge=0, le=1, description="Correlation of an expert's log popularity between a step and the next."
    )


class Uniform(_Noise):
    """Every expert is equally popular."""

    kind: Literal["uniform"] = Field(description=_KIND)


class Zipf(_Popularity):
    """Popularity falls with the place of an expert to the power of -exponent."""

    kind: Literal["zipf"] = Field(description=_KIND)
    exponent: Number = Field(1.0, ge=0, le=10, description="Exponent of the Zipf law.")


class Lognormal(_Popularity):
    """Log popularity is normal."""

    kind: Literal["lognormal"] = Field(description=_KIND)
    sigma: Number = Field(0.6, ge=0, le=10, description="Standard deviation of the log popularity.")


class Skew(_Popularity):
    """Log popularity is normal, as widely as it takes for one figure of the drawn tokens, within 1 %."""

    kind: Literal["skew"] = Field(description=_KIND)
    max_violation: Number | None = Field(
        None, gt=0, le=1e5, description="Skew: maximum load of an expert over the mean, less 1."
    )
    balancedness: Number | None = Field(
        None, gt=0, lt=1, description="Skew: mean load of a rank over the maximum, experts placed contiguously."
    )
    rank_load_max_over_mean: Number | None = Field(
        None, gt=1, le=1e6, description="Skew: maximum load of a rank over the mean, experts placed contiguously."
    )

    @model_validator(mode="after")
    def _one_figure(self) -> "Skew":
        if len(self.figures) != 1:
            at: Loc = (next(reversed(self.figures)),) if self.figures else ()
            what = f"{' and '.join(self.figures) or 'no figure of the load'} given"
            raise Mistakes((at, what, f"give one of {', '.join(SKEW_FIGURES)}"))
        return self

    @property
    def figures(self) -> dict[str, float]:
        """What the drawn tokens are to have, by name."""
        return {name: value for name in SKEW_FIGURES if (value := getattr(self, name)) is not None}


class OneHotRank(_Noise):
    """The experts of one rank are hot, all others equally popular."""

    kind: Literal["one_hot_rank"] = Field(description=_KIND)
    ratio: Number = Field(2.0, gt=0, le=1000, description=_RATIO)
    hot_rank: Count = Field(0, ge=0, le=10**6, description="The rank whose experts are hot.")


class OneHotNode(_Noise):
    """The experts of one node are hot, all others equally popular."""

    kind: Literal["one_hot_node"] = Field(description=_KIND)
    ratio: Number = Field(2.0, gt=0, le=1000, description=_RATIO)
    hot_node: Count = Field(0, ge=0, le=10**6, description="The node whose experts are hot.")


class Megatron(Block):
    """Standard normal logits through the scenario's router, as Megatron-Core's option makes them."""

    kind: Literal["megatron-force-load-balancing"] = Field(description=_KIND)
    sequence_length: Count = Field(256, ge=1, le=10**6, description=_SEQUENCE)


class Dealt(Block):
    """Experts by rule, no router involved: the suite W0 to W7 and the generators of engines."""

    kind: Literal[
        "w0-balanced", "w1-hot-experts", "w2-hot-rank", "w3-spread", "w4-ragged-sources", "w5-zero-load",
        "w6-rotating-hotspot", "w7-burst", "sglang-uniform", "sglang-round-robin", "vllm-uniform-random",
        "vllm-normal-routing", "tensorrt-llm-balanced", "deepep-test-normal", "deepep-test-low-latency",
    ] = Field(description=_KIND)  # fmt: skip


Synthetic = Uniform | Zipf | Lognormal | Skew | OneHotRank | OneHotNode | Megatron | Dealt


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
    synthetic: Annotated[Synthetic, Field(discriminator="kind")] | None = Field(
        None, description="Synthetic router logits, or experts dealt by rule."
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
        return not self.recording and (self.synthetic is None or self.deals)

    @property
    def deals(self) -> bool:
        """Whether a rule deals the experts and no router runs."""
        return isinstance(self.synthetic, Dealt)


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

    phase: Literal["prefill", "decode", "training"] = Field(
        "prefill",
        description="prefill (whole prompts) or decode (a token of each request), of MoE layers alone a label; "
        "training: a whole step, forward, backward and optimizer.",
    )
    overlap: Literal["none", "two-batch", "single-batch", "hooks"] = Field(
        "none",
        description="none: one micro-batch, the shared expert beside dispatch. Of whole steps also two-batch "
        "(communication of one beside compute of the other), single-batch (decode: combine beside the down GEMM) and "
        "hooks (decode: sends and receives as kernels of their own).",
    )
    pipeline: Literal["none", "1f1b", "zb1p", "dualpipe", "dualpipev"] = Field(
        "none", description="Training: in which order the ranks of a pipeline take micro-batches forward and back."
    )
    micro_batches: Count | None = Field(
        None,
        ge=1,
        le=10**5,
        description="Training: micro-batches of a step that pass a pipeline, each of tokens_per_rank on every rank; "
        "else as overlap says, two or one.",
    )
    stage_layers: (
        Literal["whole", "even"] | Annotated[tuple[Annotated[Count, Field(ge=0)], ...], Field(min_length=1)]
    ) = Field(
        "whole",
        description="Training: layers of each stage of the pipeline: a list; whole, so that the slowest stage is as "
        "fast as can be, the output head counted; or even, the same share of everything, fractions of layers too.",
    )
    mtp_layers: Count | None = Field(
        None, ge=0, le=16, description="Training: layers of multi-token prediction (default: the model's)."
    )
    recompute: Literal["none", "selective"] = Field(
        "none",
        description="Training: what is computed again on the way back; selective: norms, activations and MLA "
        "up-projections.",
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
