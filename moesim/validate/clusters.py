"""The clusters behind published figures: nodes of a GPU on a rail-optimised fabric, or one NVLink domain."""

import functools

import numpy as np

from moesim.cluster import Fabric, HgxTopology, LeafSpine, Nic, Nvlink, RailTopology, build_fabric
from moesim.units import exact_bandwidth


@functools.cache
def cluster(gpu: str, ranks: int, per_node: int, nvlink_peak: float, nic_peak: float) -> Fabric:
    """Build a cluster.

    Args:
        gpu: lower-case name.
        ranks: GPUs.
        per_node: GPUs of an NVLink domain.
        nvlink_peak, nic_peak: bytes/s of a GPU's ports; the peaks that the constants were measured on.
    """
    # The schema takes quantities as people write them.
    nvlink = Nvlink.model_validate({"bandwidth": exact_bandwidth(nvlink_peak)})
    nic = Nic.model_validate({"bandwidth": exact_bandwidth(nic_peak)})
    spec: HgxTopology | RailTopology
    if ranks <= per_node:
        spec = HgxTopology(kind="hgx", gpu=gpu, gpus_per_node=ranks, nvlink=nvlink, nic=nic)
    else:
        spec = RailTopology(
            kind="rail",
            gpu=gpu,
            nodes=ranks // per_node,
            gpus_per_node=per_node,
            nvlink=nvlink,
            nic=nic,
            leaf_spine=LeafSpine(spines=1),
            routing="spray",
        )
    return build_fabric(spec, name=f"{ranks} {gpu}")


def ports_of(fabric: Fabric) -> tuple[float, float]:
    """Bytes/s of a GPU's NVLink and of its share of the NICs, one direction, the mean over GPUs; 0 without any."""

    def port(link_class: str) -> float:
        mine = fabric.sender_port & (np.array(fabric.link_class) == link_class)
        return float(fabric.capacity[mine].sum()) / fabric.n_ranks

    return port("nvlink"), port("nic")
