"""Whole runs of a few hundred tokens, and a recording made by rule, for tests that look at a run from outside."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import moesim
from moesim.recording_format import Recording, write_recording
from moesim.routing import RouterSpec, route

EXPERTS, TOP_K, RANKS = 32, 4, 8
SEQUENCE = 16
DOMAINS, HELD_OUT = ("prose", "code"), ("code",)
ROUTER = {"kind": "v3", "top_k": TOP_K, "n_groups": 8, "top_groups": 4}

SMALL: Mapping[str, Any] = {
    "name": "small",
    "cluster": {"topology": "hgx-h800"},
    "model": {"preset": "deepseek-v3", "n_experts": EXPERTS, "hidden": 1024, "expert_hidden": 256},
    "routing": {"kind": "v3", "top_k": TOP_K, "groups": 8, "top_groups": 4},
    "workload": {
        "synthetic": {"kind": "lognormal", "sigma": 0.8, "sequence_length": SEQUENCE},
        "tokens_per_rank": 64,
    },
}


def scenario(*overrides: str, **blocks: Any) -> moesim.Scenario:
    """The small scenario with whole blocks replaced, then single values."""
    return moesim.load_scenario({**SMALL, **blocks}, overrides)


@functools.cache
def run(*overrides: str) -> moesim.Result:
    """Simulate the small scenario with overrides; the result is shared, do not change it."""
    return moesim.simulate(scenario(*overrides))


def run_ids(folder: Path, ids: np.ndarray, tokens_per_rank: Any, *overrides: str, **blocks: Any) -> moesim.Result:
    """Simulate given experts ids[tokens, top_k]."""
    np.save(folder / "ids.npy", ids.astype(np.int32))
    workload = {"expert_ids": str(folder / "ids.npy"), "tokens_per_rank": tokens_per_rank}
    routing = {"kind": "v1", "top_k": ids.shape[1], "groups": 1}
    return moesim.simulate(scenario(*overrides, workload=workload, routing=routing, **blocks))


def small_recording(path: Path, name: str = "", bias: float = 0.2, seed: int = 5) -> Path:
    """Write a recording: layers 1 (128 tokens) and 2 (256), steps 0, 10 and 20, V3 router with a bias."""
    rng = np.random.default_rng(seed)
    held, steps, early = {1: 128, 2: 256}, np.array([0, 10, 20]), 64
    tokens = max(held.values())
    sequence = (np.arange(tokens) // SEQUENCE).astype(np.int32)
    domain = (sequence % 4 == 3).astype(np.int8)
    popular = 0.5 * rng.normal(size=EXPERTS)
    last = {layer: (rng.normal(size=(count, EXPERTS)) + popular).astype(np.float16) for layer, count in held.items()}
    early_logits = rng.normal(size=(len(steps) - 1, len(held), early, EXPERTS)).astype(np.float16)
    biases = np.zeros((len(steps), len(held), EXPERTS), np.float32)
    biases[1:] = bias * rng.normal(size=(1, len(held), EXPERTS))
    spec = RouterSpec(n_experts=EXPERTS, score="sigmoid", group_score="top2", normalize=True, scale=2.5, **ROUTER)
    counts = np.zeros((len(steps), len(held), len(DOMAINS), EXPERTS), np.int64)
    for snapshot in range(len(steps)):
        for row, layer in enumerate(held):
            logits = last[layer] if snapshot == len(steps) - 1 else early_logits[snapshot, row]
            ids = route(logits, spec, biases[snapshot, row]).expert_ids
            for d in range(len(DOMAINS)):
                counts[snapshot, row, d] = np.bincount(ids[domain[: len(ids)] == d].ravel(), minlength=EXPERTS)
    text = rng.integers(0, 256, tokens).astype(np.uint8)
    meta = {
        "schema_version": 1,
        "name": name or path.stem,
        "router": {**ROUTER, "score": "sigmoid", "group_score": "top2", "normalize": True, "scale": 2.5},
        "balancing": "v3",
        "n_experts": EXPERTS,
        "moe_layers": list(held),
        "model": {},
        "domains": list(DOMAINS),
        "held_out": list(HELD_OUT),
        "text_sha256": hashlib.sha256(text.tobytes()).hexdigest(),
        "loss_names": ["expert_loss", "sequence_loss"],
        "training": {},
        "provenance": {},
    }
    write_recording(
        path,
        Recording(
            meta=meta,
            sequence=sequence,
            domain=domain,
            token_bytes=text,
            last_logits=last,
            steps=steps,
            early_logits=early_logits,
            counts=counts[:, :, 0],
            domain_counts=counts,
            biases=biases,
            losses=rng.random((len(steps), len(held), 2)),
            language_loss=np.ones((len(steps), len(DOMAINS))),
            sequence_imbalance=np.ones((len(steps), len(held), sequence[-1] + 1)),
        ),
    )
    return path


def recorded(path: Path, *overrides: str, **blocks: Any) -> moesim.Scenario:
    """The small scenario on a recording."""
    workload = {"recording": {"name": str(path)}, "tokens_per_rank": 16}
    return scenario(*overrides, **{"workload": workload, **blocks})
