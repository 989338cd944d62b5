"""Making recordings: a small Mixture-of-Experts language model is trained and its router logits are kept.

Needs PyTorch, which only ``pip install moesim[lab]`` brings; reading a recording does not.
"""

from moesim.errors import ResourceError

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ResourceError("PyTorch is not installed", "moesim record", "pip install 'moesim[lab]'") from error

from moesim.record.model import Sizes
from moesim.record.moe import Router
from moesim.record.session import SIZES, record
from moesim.record.torch_losses import Balancing
from moesim.record.training import METHODS, to_stderr

__all__ = ["METHODS", "SIZES", "Balancing", "Router", "Sizes", "record", "to_stderr"]
