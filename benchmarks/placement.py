"""How long placing and judging takes: 58 layers of 256 experts on 64 ranks, ten policies, one million tokens.

``python -m benchmarks.placement`` prints the seconds; no network is simulated. The trace is made by rule: an expert's
popularity is lognormal, and the tokens of a sequence share a topic that prefers some experts.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import moesim
from moesim.dumps import RoutingTrace, write_routing
from moesim.dumps.routing_trace import Source
from moesim.placement_policies import POLICIES
from moesim.run.placement_study import study

LAYERS, EXPERTS, TOP_K = 58, 256, 8


def trace(tokens: int, layers: int = LAYERS, seed: int = 0) -> RoutingTrace:
    """Make a trace: selections int32 [layers, tokens, 8] of 256 experts, sequences of 512 tokens."""
    rng = np.random.default_rng(seed)
    sequence = (np.arange(tokens) // 512).astype(np.int32)
    topic_of = rng.integers(0, 16, sequence[-1] + 1)
    ids = np.empty((layers, tokens, TOP_K), np.int32)
    for layer in range(layers):
        popularity = rng.standard_normal(EXPERTS) * 0.5
        topics = rng.standard_normal((16, EXPERTS))
        # Draws without replacement, from a pool of each topic: a token takes one of 4,096 recorded selections of it.
        noise = rng.gumbel(size=(16, 4096, EXPERTS)).astype(np.float32)
        noise += (popularity + topics)[:, None].astype(np.float32)
        pool = np.argpartition(-noise, TOP_K, axis=2)[:, :, :TOP_K].astype(np.int32)
        ids[layer] = pool[topic_of[sequence], rng.integers(0, 4096, tokens)]
    return RoutingTrace(
        "ids",
        tuple(range(3, 3 + layers)),
        EXPERTS,
        Source("moesim", "by rule"),
        top_k=TOP_K,
        ids=ids,
        sequence=sequence,
    )


def main() -> None:
    """Print the seconds of the study, reading the trace and all."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--tokens", type=int, default=1 << 20)
    asked.add_argument("--layers", type=int, default=LAYERS)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.npz"
        write_routing(path, trace(given.tokens, given.layers))
        scenario = moesim.load_scenario(
            {
                "cluster": {"topology": "h800-8x8-rail"},
                "model": {"preset": "deepseek-v3"},
                "routing": {"kind": "v3", "top_k": TOP_K, "groups": 1, "top_groups": 1},
                "workload": {"routing": str(path)},
            }
        )
        policies = [policy for policy in POLICIES if policy != "per_batch"]
        study(scenario, policies=["affinity", "eplb"], slots=[EXPERTS])  # kernels are compiled, files in memory
        began, cpu = time.perf_counter(), time.process_time()
        rows = study(scenario, policies=policies, slots=[EXPERTS + 64])
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"{given.layers} layers, {given.tokens:,} tokens, {len(policies)} policies: {wall:.1f} s, {cpu:.1f} s of CPU")
    for row in rows:
        found = row["on_b"]
        print(
            f"{row['policy']:18} {row['slots']} slots: rank {found['rank']:.3f}, nodes {found['nodes_per_token']:.3f}"
        )


if __name__ == "__main__":
    main()
