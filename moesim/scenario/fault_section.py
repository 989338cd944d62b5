"""Faults of the simulated cluster: one block for all kinds, each of which takes some of its keys."""

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from moesim.fault_kinds import FAULT_KINDS, RETRY_S
from moesim.mistakes import Loc, Mistakes
from moesim.scenario.sections import Block, Place
from moesim.units import Duration, Number, Share

if TYPE_CHECKING:
    FaultKindName = str
else:
    FaultKindName = Literal[tuple(FAULT_KINDS)]


_KINDS = f"What is wrong: {'; '.join(f'{name}: {kind.does}' for name, kind in FAULT_KINDS.items())}."


class Fault(Block):
    """A part of the cluster that is slow, broken or late."""

    kind: FaultKindName = Field(description=_KINDS)
    where: Place | Annotated[tuple[Place, ...], Field(min_length=1)] | None = Field(
        None, description="A place or a list of places, as in cluster.overrides: n3.gpu2, n3.gpu2.nic, rail2, leaf1."
    )
    factor: Number | None = Field(None, ge=1, le=1e6, description="How many times slower.")
    from_s: Duration = Field(
        0.0,
        alias="from",
        ge=0,
        description="When it begins, on the run's clock: 0 is where the first step begins, and each further step "
        "begins where the one before ended.",
    )
    to_s: Duration | None = Field(None, alias="to", ge=0, description="When it ends (default: never).")

    retry: Duration | None = Field(
        None, gt=0, description="Time from one attempt to send again to the next (default 4.29s: NCCL's on InfiniBand)."
    )
    nic: Place | None = Field(None, description="The GPU whose NIC is used instead, in the same node.")
    share: Share | None = Field(None, description="What others take of each link's capacity, such as 50%.")
    delay: Duration | None = Field(None, description="By how much they are late: the mean.")
    distribution: Literal["exponential", "fixed"] = Field(
        "exponential", description="How the delay of a rank and step is drawn; fixed: always the mean."
    )
    mode: Literal["abort", "mask", "replicas"] = Field(
        "abort",
        description="abort: the job ends. mask: their tokens are gone, and the copies for their experts dropped, as in "
        "DeepEP's shrink. replicas: their tokens are gone, their experts' other replicas take over.",
    )

    @model_validator(mode="after")
    def _has_its_keys(self) -> "Fault":
        kind = FAULT_KINDS[self.kind]
        names = {info.alias or name: name for name, info in type(self).model_fields.items() if name != "kind"}
        given = [
            key for key, name in names.items() if name in self.model_fields_set and getattr(self, name) is not None
        ]
        mistakes: list[tuple[Loc, str, str]] = [
            ((key,), f"{self.kind} takes no {key}", f"it takes {', '.join(kind.keys)}")
            for key in given
            if key not in kind.keys and getattr(self, names[key]) != type(self).model_fields[names[key]].default
        ]
        mistakes += [((), f"{self.kind} needs the key {key}", "") for key in kind.needs if key not in given]
        if self.to_s is not None and self.to_s <= self.from_s:
            mistakes.append((("to",), "it ends before it begins", "give a time after from"))
        if self.share is not None and not 0 <= self.share <= 1 - 1e-6:
            mistakes.append((("share",), f"{self.share:g} leaves nothing", "give 99.9999 % at most"))
        if self.kind == "rank_death" and self.mode != "abort" and self.from_s > 0:
            mistakes.append((("from",), f"{self.mode} is of the whole run", "leave from out, or mode: abort"))
        if mistakes:
            raise Mistakes(*mistakes)
        return self

    @property
    def retry_s(self) -> float:
        """Seconds from one attempt to send again to the next."""
        return RETRY_S if self.retry is None else self.retry

    @property
    def until_s(self) -> float:
        """When it ends, infinity for never."""
        return math.inf if self.to_s is None else self.to_s

    @property
    def places(self) -> tuple[str, ...]:
        """Where it is; nothing where the kind needs no place."""
        return () if self.where is None else (self.where,) if isinstance(self.where, str) else self.where
