"""A micro-batch on its way through a stage: forward, back, or only a part of the way back."""

from typing import Literal, NamedTuple

Kind = Literal["forward", "backward", "input", "weights"]


class Pass(NamedTuple):
    """One micro-batch in one stage.

    Attributes:
        kind: ``forward``; ``backward``, whole; or its two parts: ``input``, the gradient of what came in, which the
            stage before waits for, and ``weights``, which nobody waits for.
    """

    kind: Kind
    stage: int
    micro_batch: int


Task = tuple[Pass, ...]
"""What a rank does at a time: one pass, or a forward and a backward one that overlap."""

Order = tuple[tuple[Task, ...], ...]
"""Tasks of every rank."""
