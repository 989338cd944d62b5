"""How many copies of each token go where, and the flows that carry them."""

from moesim.traffic.alltoall import phase_flows
from moesim.traffic.calibration_set import (
    UNSEEN,
    CalibrationSet,
    Place,
    Step,
    Uncertain,
    most_of,
    value_at,
    with_value,
)
from moesim.traffic.cluster_error import error_left_out
from moesim.traffic.constant_sets import (
    Calibration,
    calibration,
    find_set,
    gpu_names,
    gpu_ports,
    gpu_steps,
    set_names,
    transport_steps,
    way_between,
)
from moesim.traffic.constants import Protocol
from moesim.traffic.copies import (
    Copies,
    CopyTotals,
    add_copies,
    count_all_copies,
    count_copies,
    no_copies,
)
from moesim.traffic.copy_bytes import payload_bytes, published_bytes, wire_bytes
from moesim.traffic.direct import direct_flows
from moesim.traffic.exchange import Exchange
from moesim.traffic.flows import QUEUES, Floats, Ints, PhaseFlows, Ptrs, over_switches
from moesim.traffic.ports.flows_per_port import PortCopies, count_port_copies, port_flows
from moesim.traffic.spread import KINDS, Spread, room, slower, spread_of
from moesim.traffic.weights import (
    busiest_link_s,
    gradient_flows,
    weight_flows,
    weight_transfer,
)

__all__ = [
    "KINDS",
    "QUEUES",
    "UNSEEN",
    "Calibration",
    "CalibrationSet",
    "Copies",
    "CopyTotals",
    "Exchange",
    "Floats",
    "Ints",
    "PhaseFlows",
    "Place",
    "PortCopies",
    "Protocol",
    "Ptrs",
    "Spread",
    "Step",
    "Uncertain",
    "add_copies",
    "busiest_link_s",
    "calibration",
    "count_all_copies",
    "count_copies",
    "count_port_copies",
    "direct_flows",
    "error_left_out",
    "find_set",
    "gpu_names",
    "gpu_ports",
    "gpu_steps",
    "gradient_flows",
    "most_of",
    "no_copies",
    "over_switches",
    "payload_bytes",
    "phase_flows",
    "port_flows",
    "published_bytes",
    "room",
    "set_names",
    "slower",
    "spread_of",
    "transport_steps",
    "value_at",
    "way_between",
    "weight_flows",
    "weight_transfer",
    "wire_bytes",
    "with_value",
]
