"""The blocks of a scenario but those that have a module of their own: each field with default, bounds and meaning.

Everything a user can read about a key comes from here: documentation, JSON Schema and error messages.
Fields whose default is a published figure are filled by ``moesim.scenario.defaults`` before
validation; their placeholder never survives it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from moesim.alltoall_library import ALGORITHMS, Transport, algorithm_named
from moesim.mistakes import Mistakes
from moesim.model import load_model
from moesim.placement_policies import POLICIES, REBALANCE_POLICIES
from moesim.scenario.named_files import is_path, refuse_escape
from moesim.units import Count, Duration, Number, Share

Name = Annotated[str, AfterValidator(refuse_escape)]
Dtype = Literal["fp8", "bf16"]
if TYPE_CHECKING:
    # A type checker wants the names of a Literal written out.
    AlgorithmName = str
    PolicyName = str
    RebalancePolicyName = str
else:
    AlgorithmName = Literal[ALGORITHMS]
    PolicyName = Literal[POLICIES]
    RebalancePolicyName = Literal[REBALANCE_POLICIES]


class Block(BaseModel):
    """A block of a scenario: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)


def _filled(description: str, **bounds: Any) -> Any:
    """A field whose default ``defaults`` takes from the model's publication; 0 stands in for it."""
    return Field(default_factory=lambda: 0, description=description, **bounds)


def _known_model(name: str) -> str:
    """Refuse an unknown name at once; a path is read where its sizes are needed."""
    if not is_path(name):
        load_model(name)
    return name


Place = Annotated[str, Field(min_length=1, max_length=200)]


class Model(Block):
    """Sizes of the model; what is not given is the preset's."""

    preset: Annotated[Name, AfterValidator(_known_model)] = Field(
        "deepseek-v3", description="A published model by name, or the path of a released config.json."
    )
    n_experts: Count = _filled("Routed experts per layer (default: the preset's).", ge=1, le=10**5)
    hidden: Count = _filled("Elements of a token (default: the preset's).", ge=1, le=10**6)
    expert_hidden: Count = _filled("Inner width of one expert's FFN (default: the preset's).", ge=1, le=10**6)
    n_shared: Count = _filled("Shared experts (default: the preset's).", ge=0, le=1000)
    shared_hidden: Count | None = Field(
        None,
        ge=0,
        le=10**6,
        description="Inner width of the shared experts together, or of a dense FFN beside the experts "
        "(default: n_shared x expert_hidden, or the preset's where it has another).",
    )
    latent: Count | None = Field(
        None,
        ge=1,
        le=10**6,
        description="Elements of a token as it is sent to the experts (default: the preset's; null: hidden).",
    )
    layers: Count = _filled(
        "Layers of the whole model, for weights and KV cache (default: the preset's).", ge=1, le=10**5
    )
    attention: Literal["mla", "mha", "gqa", "mqa"] | None = Field(
        None, description="Another kind of attention, of as many heads of the same size (default: the preset's)."
    )
    heads: Count | None = Field(None, ge=1, le=10**5, description="Query heads (default: the preset's).")
    kv_heads: Count | None = Field(None, ge=1, le=10**5, description="KV heads of GQA (default: the kind's).")
    kv_lora_rank: Count | None = Field(
        None, ge=1, le=10**6, description="Width of MLA's cached latent (default: the kind's)."
    )

    @property
    def shared_width(self) -> int:
        """Inner width of what every token passes beside its experts."""
        return self.n_shared * self.expert_hidden if self.shared_hidden is None else self.shared_hidden

    @property
    def sent(self) -> int:
        """Elements of a token as it is sent to the experts."""
        return self.hidden if self.latent is None else self.latent


# What each kind means where neither the scenario nor the model's publication says otherwise: DeepSeekMoE
# eq. 9-11, DeepSeek-V2 section 2.2.2 (maximum per device as in the released code), DeepSeek-V3 eq. 12-16.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "v1": {"score": "softmax", "group_score": "max", "normalize": False, "scale": 1.0},
    "v2": {"score": "softmax", "group_score": "max", "normalize": False, "scale": 1.0},
    "v3": {"score": "sigmoid", "group_score": "top2", "normalize": True, "scale": 1.0},
}


class Routing(Block):
    """The router. Without keys: the router that the model preset was published with.

    A kind other than the preset's starts from that kind's own knobs (v1 softmax; v2 softmax, best expert per
    group; v3 sigmoid, two best experts per group, normalised gates) and keeps the preset's top_k.
    """

    kind: Literal["v1", "v2", "v3"] = _filled("Which paper's router (default: the preset's).")
    top_k: Count = _filled("Experts per token, K (default: the preset's).", ge=1, le=1024)
    groups: Literal["rank", "node"] | Annotated[Count, Field(ge=1)] = _filled(
        "What limits a token's reach: ranks, nodes, or a number of groups of experts; "
        "1 means no limit (default: the preset's number if the kind is the preset's, else 1)."
    )
    top_groups: Count = _filled(
        "Groups that a token may reach, M (default: the preset's if the kind is the preset's).", ge=1
    )
    score: Literal["softmax", "sigmoid"] = _filled("How logits become affinities (default: the kind's).")
    group_score: Literal["max", "sum", "top2", "topk_over_m"] = _filled(
        "Which affinities of a group are summed to rank it; topk_over_m: the K // M highest (default: the kind's)."
    )
    normalize: bool = _filled("Whether the gates of a token are divided by their sum (default: the kind's).")
    scale: Number = _filled("Factor on the gates (default: the kind's or preset's).", ge=1e-6, le=1e6)
    bias: Name = _filled(
        "Bias of the selection: recorded, zero, or a file with one number per expert "
        "(default: recorded for v3 on a recording, else zero)."
    )
    update_bias: bool = Field(
        False,
        description="Whether the bias moves after each step by losses.bias_rate, as in training (v3 only).",
    )


class Rebalance(Block):
    """Experts placed anew while the run goes on, by the load seen since the last time."""

    every: Count = Field(ge=1, le=10**6, description="Steps (batches) from one rearrangement to the next.")
    policy: RebalancePolicyName = Field("eplb", description="By what the experts are placed anew.")
    mode: Literal["blocking", "layerwise", "async"] = Field(
        "blocking",
        description="How weights move: all before the next step, layer by layer between its layers, or one layer a "
        "step beside the tokens.",
    )
    fixed_time: Duration | None = Field(
        None, ge=0, description="What each layer takes beside its bytes; by default what was published for the mode."
    )


class PlacementBlock(Block):
    """Which rank holds which experts."""

    policy: PolicyName = Field(
        "contiguous",
        description="How experts are laid on ranks: contiguous, round_robin and random know no load; greedy, eplb (one "
        "of eplb_hierarchical and eplb_global, as published), lp and replicate_top follow it; affinity puts experts "
        "that tokens select together on one node; per_batch fetches weights for every batch.",
    )
    file: Name | None = Field(
        None,
        description="A placement map instead of a policy: SGLang's JSON, TensorRT-LLM's YAML or moesim's own JSON.",
    )
    redundant_experts: Count = Field(
        0,
        ge=0,
        le=10**5,
        description="Extra slots for replicas of hot experts, or for the weights that per_batch fetches.",
    )
    learn_from: Name | None = Field(
        None,
        description="What the policy learns the load from: first_half of the recorded tokens (the run then draws from "
        "the second; of synthetic tokens another batch), all, batch (the very batch it is judged on), or a file of "
        "recorded routing. Default: batch in a run, first_half for `moesim place`.",
    )
    moves: Count | None = Field(
        None,
        ge=0,
        le=10**6,
        description="Experts of a layer moved at most from where engines start, slot s holding expert s modulo the "
        "experts; null: any number.",
    )
    node_load_limit: Number = Field(
        1.05, ge=1, le=1000, description="Load of the fullest node over the mean that affinity may reach."
    )
    replica_choice: Literal["same_node", "round_robin", "hash"] = Field(
        "same_node", description="Which replica a token takes."
    )
    rebalance: Rebalance | None = Field(None, description="Place experts anew in a run of many steps; null: never.")

    @property
    def moves_weights(self) -> bool:
        """Whether weights travel while tokens are served."""
        return self.rebalance is not None or self.policy == "per_batch"


class AllToAll(Block):
    """How tokens travel to their experts and back."""

    algorithm: AlgorithmName = Field(
        "deepep-normal", description="The library whose flows, sizes and set-up times are simulated."
    )
    dispatch_dtype: Dtype = Field("fp8", description="Type of dispatched tokens; the expert GEMM follows it.")
    combine_dtype: Dtype = Field("bf16", description="Type of the results on the way back.")
    cached_handle: bool = Field(
        False,
        description="The layout is already known: no layout kernel, no notify, no CPU synchronisation "
        f"({', '.join(name for name in ALGORITHMS if algorithm_named(name).handle)}).",
    )
    calibration: Name = Field(
        "auto",
        description="Constants of the algorithm: auto (the default set for the GPU), the name of a set, or a file.",
    )
    transport: Literal["auto"] | Transport = Field(
        "auto",
        description="Who posts to the NIC: the GPU (ibgda, efa-gda) or a thread of the CPU (ibrc, proxy, efa-proxy); "
        "auto: ibgda for ConnectX; for EFA efa-gda in DeepEP V2, else efa-proxy.",
    )
    receive_hook: bool = Field(
        True,
        description="Low latency: no SMs are held while bytes are on the wire; false: the kernel stays on them.",
    )
    sms: Count | None = Field(
        None,
        ge=1,
        le=256,
        description="SMs that the communication kernels hold; null: the library's own number.",
    )


class Network(Block):
    """How exactly the flows on the wires are followed."""

    tolerance: Share = Field(
        0.0,
        description="Longest step of the flows on the wires, as a share of the busiest link's time, such as 0.1%; "
        "0: every event, exact. The result says by how much it may be off.",
    )

    @field_validator("tolerance")
    @classmethod
    def _zero_or_in_range(cls, tolerance: float) -> float:
        if tolerance and not 1e-4 <= tolerance <= 0.1:
            raise Mistakes(((), f"{tolerance:g} is out of range", "give 0 (exact) or 0.01% to 10%"))
        return tolerance


class Compute(Block):
    """Where kernel times come from."""

    table: Name = Field(
        "auto",
        description="Kernel table: auto (the topology's GPU), a GPU's name, or the path of a CSV table.",
    )
    library_date: str | None = Field(
        None,
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        description="Whole steps: kernels as released by this day, such as 2025-02-25 (default: as in the tables).",
    )
    attention_dtype: Literal["bf16", "fp8"] = Field(
        "bf16", description="Whole steps: core attention and the KV cache in BF16, or in FP8 (estimated from BF16)."
    )


class Losses(Block):
    """Balance losses: their form and their weights (alpha)."""

    form: Literal["paper", "document"] = Field(
        "paper", description="Constants of the papers, or of the source document (no N_r, no D)."
    )
    expert: Number = Field(0.003, ge=0, le=1e6, description="Weight of the expert-level loss.")
    device: Number = Field(0.05, ge=0, le=1e6, description="Weight of the device-level loss.")
    communication: Number = Field(0.02, ge=0, le=1e6, description="Weight of the communication loss.")
    sequence: Number = Field(1e-4, ge=0, le=1e6, description="Weight of the sequence-wise loss.")
    z: Number = Field(1e-3, ge=0, le=1e6, description="Weight of the router z-loss.")
    bias_rate: Number = Field(0.001, ge=0, le=1e3, description="Step of the bias update.")
