"""Small rail-optimised clusters, built from a few numbers."""

from moesim.cluster import build_fabric
from moesim.cluster.topology_spec import RailTopology


def small_rail(nodes, gpus_per_node, ranks=None, nvlink="200GB/s", nic="50GB/s", gpu="h800", routing="spray"):
    """Return a fabric with round capacities and the default latencies: NVLink 3.33 us, NIC 2.8 us, spine 0.9 us."""
    spec = RailTopology(
        kind="rail",
        gpu=gpu,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        nvlink={"bandwidth": nvlink},
        nic={"bandwidth": nic},
        leaf_spine={"spines": 2},
        routing=routing,
    )
    fabric = build_fabric(spec, f"{nodes} x {gpus_per_node}")
    return fabric if ranks is None else fabric.first_ranks(ranks)


def ports(fabric, link_class, end):
    """Each rank's one link of a class, ``out`` to send by or ``in`` to receive by."""
    ends = fabric.link_source if end == "out" else fabric.link_target
    of_class = {name: link for link, name in enumerate(ends) if fabric.link_class[link] == link_class}
    return [of_class[name] for name in fabric.rank_names]
