"""A scenario of a few hundred tokens, and what tests of sweeps share. Workers import this module by its name."""

import os
import signal
from pathlib import Path

from moesim.sweeps.evaluate_points import time_point

SMALL = {
    "name": "small",
    "cluster": {"topology": "hgx-h800"},
    "model": {"preset": "deepseek-v3", "n_experts": 16, "hidden": 1024, "expert_hidden": 256},
    "routing": {"kind": "v3", "top_k": 4, "groups": 8, "top_groups": 4},
    "workload": {
        "synthetic": {"kind": "lognormal", "sigma": 0.8, "sequence_length": 16},
        "tokens_per_rank": 16,
    },
}
AXES = {"routing.top_k": [2, 4], "routing.top_groups": [2, 4], "alltoall.algorithm": ["nccl-direct", "deepep-normal"]}

SMALL_YAML = """\
name: small
cluster: {topology: hgx-h800}
model: {preset: deepseek-v3, n_experts: 16, hidden: 1024, expert_hidden: 256}
routing: {kind: v3, top_k: 4, groups: 8, top_groups: 4}
workload:
  synthetic: {kind: lognormal, sigma: 0.8, sequence_length: 16}
  tokens_per_rank: 16
"""


def noted_time_point(template, values, routed):
    """Stand in for ``time_point``: note in the file of SWEEP_LOG that a point was begun."""
    with open(os.environ["SWEEP_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{sorted(values.items())}\n")
    if "SWEEP_HELD" in os.environ:
        signal.pause()  # for good: whoever asked for it kills this sweep
    return time_point(template, values, routed)


def deadly_time_point(template, values, routed):
    """Stand in for ``time_point``: kill the worker at seed 3 always, at seed 1 the first time only."""
    mark = Path(os.environ["SWEEP_LOG"])
    if values["seed"] == 3 or (values["seed"] == 1 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return time_point(template, values, routed)


def failing_time_point(template, values, routed):
    """Stand in for ``time_point``: break a law at seed 2."""
    if values["seed"] == 2:
        routed = None
    return time_point(template, values, routed)
