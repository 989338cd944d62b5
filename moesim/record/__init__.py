"""Making recordings: of a small Mixture-of-Experts language model that is trained here, or of a model of yours.

Needs PyTorch, which only ``pip install moesim[lab]`` brings and which is loaded at first need; reading them does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from moesim.errors import ResourceError
from moesim.record.routing_hook import RoutingRecorder, record_routing

if TYPE_CHECKING:
    from moesim.record.model import Sizes
    from moesim.record.moe import Router
    from moesim.record.session import SIZES, record
    from moesim.record.torch_losses import Balancing
    from moesim.record.training import METHODS, to_stderr

__all__ = [
    "METHODS", "SIZES", "Balancing", "Router", "RoutingRecorder", "Sizes", "record", "record_routing", "to_stderr",
]  # fmt: skip
_HOME = {
    "METHODS": "training", "SIZES": "session", "Balancing": "torch_losses", "Router": "moe", "Sizes": "model",
    "record": "session", "to_stderr": "training",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ResourceError("PyTorch is not installed: moesim record needs it; pip install 'moesim[lab]'") from error
    return getattr(import_module(f"moesim.record.{_HOME[name]}"), name)
