"""What arrives: tokens on ranks, and the router logits (or experts) of each."""

from moesim.workload.batch import Batch
from moesim.workload.chosen import counts_batch, expert_ids_batch
from moesim.workload.counts_file import read_counts
from moesim.workload.logits_file import logits_batch
from moesim.workload.npz_input import read_array
from moesim.workload.recorded import recorded_batch
from moesim.workload.resample import Resampled, resample_experts
from moesim.workload.synthetic import synthetic_batch

__all__ = [
    "Batch",
    "Resampled",
    "counts_batch",
    "expert_ids_batch",
    "logits_batch",
    "read_array",
    "read_counts",
    "recorded_batch",
    "resample_experts",
    "synthetic_batch",
]
