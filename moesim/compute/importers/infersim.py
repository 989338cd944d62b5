"""Tables in the layout of InferSim's bench_data: grouped GEMM (masked, contiguous), dense GEMM, MLA.

A grouped row times up and down projection; SwiGLU between them is not in the file and is added at memory speed.
The masked benchmark draws each expert's rows between 0.7 and 1.3 times ``tokens_per_expert``, so what it ran with
is worked out from the MFU, which counts true rows: m = MFU * peak * t / (2 N K experts).
"""

import re
from collections.abc import Iterator

import numpy as np

from moesim.compute import roofline
from moesim.compute.importers.records import Job, Record, Refused
from moesim.compute.table_format import Row

NEEDED = ("mfu|up_mfu",)
IMPL = ""

# <heads>-<latent>-<rope>.csv for decode, <heads>-<nope>-<rope>.csv for prefill, or with words between them.
_MLA_NAME = re.compile(r"(?<![0-9])([0-9]+)h?[-_](?:512|128)[-_]64(?![0-9])|(?<![0-9])([0-9]+)h(?![a-z0-9])")


def rows_of(record: Record, job: Job) -> Iterator[Row]:
    """Yield the table row of a record. Raises Refused."""
    if "up_proj_us" in record.fields:
        yield _grouped(record, job)
    elif "kv_len" in record.fields:
        record.dtype("dtype")
        yield Row("mla_decode", record.dtype("kv_dtype"), (_heads(job),), record.whole("batch_size"),
                  record.whole("kv_len"), record.number("latency_us") * 1e-6)  # fmt: skip
    elif "seq_len" in record.fields:
        yield Row("mla_prefill", record.dtype("dtype"), (_heads(job),), 1, record.whole("seq_len"),
                  record.number("latency_us") * 1e-6)  # fmt: skip
    else:
        fixed = (record.whole("n"), record.whole("k"))
        yield Row("gemm", "fp8", fixed, 1, record.whole("m"), record.number("latency_us") * 1e-6)


def _grouped(record: Record, job: Job) -> Row:
    hidden, inter = record.whole("hidden_size"), record.whole("intermediate_size")
    experts, tokens = record.whole("num_local_experts"), float(record.whole("tokens_per_expert"))
    up, down = record.number("up_proj_us") * 1e-6, record.number("down_proj_us") * 1e-6
    masked = "batch_size_per_gpu" in record.fields
    if masked:
        parts = ((up, "up_mfu", 2 * inter, hidden), (down, "down_mfu", hidden, inter))
        ran = [record.number(mfu) * job.gpu.flops("fp8") * t / (2.0 * n * k * experts) for t, mfu, n, k in parts]
        tokens = float(f"{np.mean(ran):.3g}")
        job.note("tokens per expert of masked rows are worked out from the MFU, which the file rounds")
    if tokens < 1:
        raise Refused("under one token per expert: how many experts got one is not in the file")
    swiglu = roofline.swiglu_work(experts * tokens, inter, "fp8").estimate(job.gpu, peak_share=1.0)
    job.note("SwiGLU is not in the file: added at memory speed (estimated)")
    layout = "masked" if masked else "contiguous"
    return Row("grouped_gemm", "fp8", (hidden, inter), experts, tokens, up + down + float(swiglu), layout=layout)


def _heads(job: Job) -> int:
    found = _MLA_NAME.search(job.path.stem)
    if found is None:
        raise Refused("attention other than MLA, or a file name without the number of heads (128-512-64.csv)")
    return int(found[1] or found[2])
