"""What arrives: tokens on ranks, and the router logits (or experts) of each."""

from moesim.dumps import RoutingTrace, read_routing
from moesim.workload.batch import Batch, listed, micro_batches, without_ranks
from moesim.workload.counted import counts_batch
from moesim.workload.dealt import WITH_REPLACEMENT, dealt_batch
from moesim.workload.recorded import recorded_batch
from moesim.workload.resample import resample_experts
from moesim.workload.skew import Target
from moesim.workload.synthetic import synthetic_batch
from moesim.workload.token_draw import Half
from moesim.workload.traced import half_of_trace, traced_batch

__all__ = [
    "WITH_REPLACEMENT",
    "Batch",
    "Half",
    "RoutingTrace",
    "Target",
    "counts_batch",
    "dealt_batch",
    "half_of_trace",
    "listed",
    "micro_batches",
    "read_routing",
    "recorded_batch",
    "resample_experts",
    "synthetic_batch",
    "traced_batch",
    "without_ranks",
]
