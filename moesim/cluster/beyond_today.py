"""Links faster than any that can be bought: bytes typed for bits, more often than a study of what may come."""

from moesim.cluster.fabric import Fabric
from moesim.cluster.graph import NIC, NVLINK
from moesim.units import format_bandwidth

# The fastest of a GPU, one direction in bytes/s; what it is; what else may be meant by a rate of so many GB/s.
FASTEST = {
    NIC: (200e9, "NICs (1.6Tb/s, two of 800Gb/s)", "did you mean {:g}Gb/s?"),
    NVLINK: (1.8e12, "NVLinks (1.8TB/s, of Rubin)", "is {:g} GB/s that of both directions together?"),
}


def beyond_today(fabric: Fabric) -> list[str]:
    """Return a question for each class of links that is above any of today; nothing is refused."""
    asked = []
    for link_class, (fastest, what, question) in FASTEST.items():
        most = float(fabric.capacity[fabric.is_class(link_class)].max(initial=0.0))
        if most > fastest * (1 + 1e-9):
            asked.append(f"{format_bandwidth(most)} of a GPU is above any of today's {what}: "
                         + question.format(most / 1e9))  # fmt: skip
    return asked
