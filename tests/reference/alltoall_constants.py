"""Round constants for tests of flows and clocks: what they check holds whatever the shipped sets were fitted to."""

from dataclasses import replace

from moesim.traffic.constant_sets import Calibration

US, GB = 1e-6, 1e9

# NVLink and NIC in GB/s, set-up inside a node and across in us, SMs; DeepEP's and NCCL's published figures, rounded.
_PLAIN = {
    "deepep-normal": (128, 43, 0, 0, 24),
    "deepep-low-latency": (135, 42, 24, 24, 0),
    "nccl-direct": (160, 48, 24, 100, 16),
}
_LIKE = {
    "nccl-pxn": "nccl-direct",
    "allgather-reduce-scatter": "nccl-direct",
    "deepep-low-latency-nic": "deepep-low-latency",
    "nvl-one-sided": "deepep-low-latency",
    "nvl-two-sided": "deepep-low-latency",
    "deepep-v2-direct": "deepep-low-latency",
    "deepep-v2-hybrid": "deepep-normal",
    "hybrid-ep": "deepep-normal",
}
_HOPPER = {"deepep-normal": (290, 45), "deepep-low-latency": (290, 45), "nccl-direct": (370, 48)}


def plain(algorithm, gpu="h800", wire_over_published=1.0, sms=None, **terms):
    """Constants of an algorithm on H800 (ports of 200 and 50 GB/s) or another Hopper GPU (450 and 50)."""
    like = _LIKE.get(algorithm, algorithm)
    nvlink, nic, inside, across, its_sms = _PLAIN[like]
    if gpu != "h800":
        nvlink, nic = _HOPPER[like]
    scale = wire_over_published if like == "deepep-normal" else 1.0
    made = Calibration(
        algorithm=algorithm,
        gpu=gpu,
        phase="dispatch",
        name="plain",
        source="round figures",
        nvlink_peak=(200 if gpu == "h800" else 450) * GB,
        nic_peak=50 * GB,
        total_sms=132,
        nvlink_rate=nvlink * GB * scale,
        nic_rate=nic * GB * scale,
        sms=its_sms if sms is None else sms,
        setup_intra_node_s=inside * US,
        setup_inter_node_s=across * US,
    )
    if like == "deepep-normal":
        made = replace(
            made, layout_s=50 * US, notify_two_nodes_s=32 * US, notify_four_nodes_s=55 * US, cpu_sync_s=100 * US
        )
    return replace(made, **terms)
