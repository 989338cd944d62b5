"""What a model is to moesim: sizes, a router and its attention, all plain numbers.

Parameters follow from the sizes alone: embedding and output head (one where they are tied), mixers, RMS norms, dense
and expert FFNs of three matrices (SwiGLU; two where there is no gate), the router. Biases of linear layers and the
multi-token-prediction layers are left out; the former are below one percent.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from moesim.model.layer_attention import Attention


@dataclass(frozen=True)
class PublishedRouter:
    """The router that a model was published with: the knobs of ``moesim.routing.RouterSpec``.

    Kind ``v3`` selects with a bias, whatever the ``score``; ``sqrtsoftplus`` (DeepSeek-V4) is simulated as a sigmoid.
    """

    kind: Literal["v1", "v2", "v3"]
    top_k: int
    score: Literal["softmax", "sigmoid", "sqrtsoftplus"]
    normalize: bool
    scale: float
    n_groups: int = 1
    top_groups: int = 1
    group_score: Literal["max", "sum", "top2", "topk_over_m"] = "max"

    def simulated(self) -> dict[str, Any]:
        """Return the knobs as moesim has them."""
        return vars(self) | {"score": "softmax" if self.score == "softmax" else "sigmoid"}


@dataclass(frozen=True)
class ModelSpec:
    """A published (or own) Mixture-of-Experts model.

    ``published_total`` and ``published_active`` are what the authors state (None where they state nothing);
    ``total_parameters`` and ``active_parameters`` follow from the sizes.

    Attributes:
        moe_layer_ids: the layers with experts, from 0 on.
        dense_layers: FFNs without experts, of width ``dense_hidden`` (None: as wide as what a token passes elsewhere).
        n_shared: shared experts of a layer; ``shared_hidden`` their inner width together, or that of a dense FFN
            beside the experts: what every token passes.
        latent: elements of a token as the experts take it, where it is not ``hidden``.
        zero_experts: choices of the router beside the experts that cost nothing.
        ffn_matrices: 3 with a gate, 2 without.
        mtp_layers: multi-token-prediction layers, in none of the totals.
        looked_up: further weights that are looked up or used by no text token: no token passes through them.
        attentions: the model's attention, one value per kind; that of full attention is first.
        uncertain: figures that the sources do not state, and where they come from instead.
    """

    name: str
    title: str
    hidden: int
    layers: int
    moe_layer_ids: tuple[int, ...]
    dense_layers: int
    dense_hidden: int | None
    vocab: int
    n_experts: int
    n_shared: int
    shared_hidden: int
    expert_hidden: int
    router: PublishedRouter
    attentions: tuple[Attention, ...]
    published_total: float | None
    published_active: float | None
    sources: tuple[str, ...]
    uncertain: tuple[str, ...]
    latent: int | None = None
    zero_experts: int = 0
    ffn_matrices: int = 3
    tied: bool = False
    mtp_layers: int = 0
    looked_up: int = 0

    @property
    def attention(self) -> Attention:
        """The attention that sees all tokens, where the model has one, else its first."""
        return self.attentions[0]

    @property
    def moe_layers(self) -> int:
        """Number of layers with experts."""
        return len(self.moe_layer_ids)

    @property
    def expert_parameters(self) -> int:
        """Weights of one expert: gate (where there is one), up and down projection."""
        return self.ffn_matrices * (self.latent or self.hidden) * self.expert_hidden

    def kv_cache_bytes_per_token(self, bytes_per_element: float = 2, beyond_windows: bool = False) -> int:
        """Return the KV cache of one token over all layers, bytes; or what of it stays behind the layers' windows."""
        return round(sum(one.kv_cache_bytes_per_token(bytes_per_element, beyond_windows) for one in self.attentions))

    @property
    def total_parameters(self) -> int:
        """All weights, every expert counted."""
        return self._parameters(self.n_experts) + self.looked_up

    @property
    def active_parameters(self) -> int:
        """Weights that one token passes through, the embedding and the output head counted whole.

        With ``zero_experts`` that of a router which chooses evenly.
        """
        return self._parameters(self.router.top_k * self.n_experts / (self.n_experts + self.zero_experts))

    def resized(self, **sizes: Any) -> "ModelSpec":
        """Return the model with other sizes; of more or fewer ``layers`` the last kind goes on or is cut."""
        layers, last = sizes.get("layers", self.layers), self.layers - 1

        def fitted(ids: tuple[int, ...]) -> tuple[int, ...]:
            more = tuple(range(self.layers, layers)) if last in ids else ()
            return tuple(layer for layer in ids if layer < layers) + more * ids.count(last)

        moe = fitted(self.moe_layer_ids)
        plain = self.dense_layers == self.layers - self.moe_layers  # each layer has an FFN of one kind
        return dataclasses.replace(
            self,
            moe_layer_ids=moe,
            dense_layers=layers - len(moe) if plain else self.dense_layers * layers // self.layers,
            attentions=tuple(dataclasses.replace(one, layers=fitted(one.layers)) for one in self.attentions),
            **sizes,
        )

    def _parameters(self, experts_counted: float) -> int:
        router = (self.n_experts + self.zero_experts) * (self.hidden + (self.router.kind == "v3"))
        shared = self.ffn_matrices * self.hidden * self.shared_hidden
        latent = 2 * self.hidden * self.latent if self.latent else 0
        moe_layer = experts_counted * self.expert_parameters + shared + latent + router
        dense_width = self.dense_hidden or self.router.top_k * self.expert_hidden + self.shared_hidden
        mixers = sum(len(one.layers) * one.parameters(self.hidden) for one in self.attentions)
        return round(
            (1 if self.tied else 2) * self.vocab * self.hidden
            + self.hidden
            + self.layers * 2 * self.hidden
            + mixers
            + self.moe_layers * moe_layer
            + self.dense_layers * self.ffn_matrices * self.hidden * dense_width
        )
