"""The entries of a topology file that lists its devices and links one by one."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moesim.errors import InputError
from moesim.mistakes import Mistakes
from moesim.units import Bandwidth, Count, Duration, exact_bandwidth, parse_nic_bandwidth

PositiveBandwidth = Annotated[Bandwidth, Field(gt=0, allow_inf_nan=False)]
Latency = Annotated[Duration, Field(ge=0, le=1, allow_inf_nan=False)]
DeviceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]


class Section(BaseModel):
    """A block of a topology file: no unknown keys, unchangeable once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Device(Section):
    """A GPU or a switch of an explicit topology."""

    name: DeviceName = Field(description="Name of the device.")
    type: Literal["gpu", "switch"] = Field(description="gpu or switch.")
    node: Count | None = Field(
        default=None, ge=0, le=8191, description="NVLink domain; every GPU has one, a switch if it is inside a node."
    )


class Link(Section):
    """A link of an explicit topology."""

    source: DeviceName = Field(description="Device that sends.")
    target: DeviceName = Field(description="Device that receives.")
    bandwidth: PositiveBandwidth = Field(description="Peak of one direction.")
    latency: Latency = Field(default=0.0, description="Latency from source to target, of this link alone.")
    latency_back: Latency = Field(
        default=0.0,
        description="Latency from target to source, if both_ways. Left at 0, only the sender's side counts, as in the "
        "other kinds, and a flow that fans out to several receivers counts it once.",
    )
    link_class: str = Field(
        alias="class",
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="nvlink, nic, leaf-spine or a name of your own: results are totalled by it.",
    )
    both_ways: bool = Field(default=True, description="Also the link from target to source.")

    @model_validator(mode="after")
    def _plausible(self) -> Self:
        if self.link_class == "nic":
            try:
                parse_nic_bandwidth(exact_bandwidth(self.bandwidth))
            except InputError as error:
                raise Mistakes((("bandwidth",), error.what, error.fix)) from None
        return self
