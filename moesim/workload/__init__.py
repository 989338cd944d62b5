"""What arrives: tokens on ranks, and the router logits (or experts) of each."""

from moesim.dumps import RoutingTrace, read_routing
from moesim.workload.batch import Batch, micro_batches
from moesim.workload.counted import counts_batch
from moesim.workload.recorded import recorded_batch
from moesim.workload.resample import Resampled, resample_experts
from moesim.workload.synthetic import synthetic_batch
from moesim.workload.traced import traced_batch

__all__ = [
    "Batch",
    "Resampled",
    "RoutingTrace",
    "counts_batch",
    "micro_batches",
    "read_routing",
    "recorded_batch",
    "resample_experts",
    "synthetic_batch",
    "traced_batch",
]
