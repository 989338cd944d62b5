"""From the choice of a balancing method to a recording on disk: the work behind ``moesim record``."""

import hashlib
import os
import platform
import shlex
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import moesim
from moesim.errors import InputError
from moesim.record.model import Sizes
from moesim.record.routing_hook import check_writable
from moesim.record.snapshot import assemble
from moesim.record.text import DOMAINS, HELD_OUT, Corpus, EvaluationText, evaluation_text, load_corpus
from moesim.record.torch_losses import LOSS_NAMES, N_DEVICES, PUBLISHED_ALPHA
from moesim.record.training import METHODS, Method, Plan, Trained, snapshot_steps, steps_within, train
from moesim.recording_format import META_KEYS, RECORDING, SCHEMA_VERSION, Recording, write_recording

SIZES = {
    "tiny": Sizes(),
    "small": Sizes(
        layers=8, hidden=512, dense_hidden=1536, heads=8, nope_dim=32, rope_dim=32, value_dim=64,
        kv_lora_rank=128, q_lora_rank=192, expert_hidden=128,
    ),
}  # fmt: skip
DEFAULT_SECONDS = 420.0
TEXT_SEED = 20_250_101
SEQUENCE_LENGTH = 256
SEQUENCES = 64
SHORT_TOKENS = 4_096
EARLY_TOKENS = 1_024
SNAPSHOTS = 6


def record(
    out: str | os.PathLike[str],
    balancing: str = "v3",
    *,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    threads: int = 2,
    device: str = "cpu",
    size: str = "tiny",
    sizes: Sizes | None = None,
    batch_sequences: int = 8,
    learning_rate: float = 2e-3,
    bias_rate: float | None = None,
    sequences: int = SEQUENCES,
    progress: Callable[[str], None] | None = None,
) -> Recording:
    """Train the small model with one balancing method and write the logits of its routers to ``out``.

    ``balancing`` is none, v1, v2 or v3; ``steps`` are taken exactly, ``seconds`` (default 420) decide their
    number from a short trial. ``size`` is tiny or small, ``sizes`` overrides it. ``bias_rate`` replaces V3's.
    ``sequences`` of 256 tokens are recorded, the same ones whatever the seed. Returns what was written.
    Raises InputError for a value that cannot be used, ResourceError if ``out`` cannot be written.
    """
    method = _method(balancing, bias_rate)
    if size not in SIZES:
        raise InputError(f"no size {size!r}", "--size", f"sizes are {', '.join(SIZES)}")
    sizes = replace(sizes or SIZES[size], n_shared=method.n_shared)
    if steps is not None and seconds is not None:
        raise InputError("both steps and seconds are given", "--steps", "give one of them")
    for name, value in (
        ("steps", steps),
        ("seconds", seconds),
        ("threads", threads),
        ("sequences", sequences),
    ):
        if value is not None and not value > 0:
            raise InputError(f"{name} is {value}, not positive", f"--{name}")
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise InputError(f"no device {device!r} here", "--device", "cpu always works")
    check_writable(Path(out), RECORDING, "--out")

    corpus = load_corpus()
    text = evaluation_text(corpus, sequences, SEQUENCE_LENGTH, TEXT_SEED)
    plan = Plan(steps or 1, seed, batch_sequences, learning_rate, device)
    threads_before = torch.get_num_threads()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(device == "cpu")
    try:
        if steps is None:
            steps = steps_within(seconds or DEFAULT_SECONDS, method, sizes, plan, corpus, text)
            plan = replace(plan, steps=steps)
        trained = train(method, sizes, plan, corpus, text, snapshot_steps(steps, SNAPSHOTS), progress)
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(deterministic_before)

    command = ["moesim", "record", "--balancing", balancing, "--steps", str(steps), "--seed", str(seed)]
    command += ["--threads", str(threads), "--device", device, "--size", size]
    command += ["--batch-sequences", str(batch_sequences), "--learning-rate", str(learning_rate)]
    command += ["--bias-rate", str(method.balancing.bias_rate)] if method.balancing.bias_rate else []
    command += ["--out", Path(out).name]
    meta = _meta(Path(out).stem, balancing, method, sizes, plan, corpus, text, trained, threads, shlex.join(command))
    layers = meta["moe_layers"]
    recording = assemble(meta, trained.snapshots, text, layers[len(layers) // 2], SHORT_TOKENS, EARLY_TOKENS)
    write_recording(out, recording)
    return recording


def _method(balancing: str, bias_rate: float | None) -> Method:
    if balancing not in METHODS:
        raise InputError(f"no balancing {balancing!r}", "--balancing", f"methods are {', '.join(METHODS)}")
    method = METHODS[balancing]
    if bias_rate is None:
        return method
    if not method.balancing.bias_rate:
        raise InputError(f"balancing {balancing} has no bias", "--bias-rate", "only v3 takes a rate")
    if not bias_rate > 0:
        raise InputError(f"bias rate is {bias_rate}, not positive", "--bias-rate")
    return replace(method, balancing=replace(method.balancing, bias_rate=bias_rate))


def _meta(
    name: str, balancing: str, method: Method, sizes: Sizes, plan: Plan, corpus: Corpus, text: EvaluationText,
    trained: Trained, threads: int, command: str,
) -> dict[str, Any]:  # fmt: skip
    inside = int(np.sum([DOMAINS[d] not in HELD_OUT for d in text.domain])) * text.tokens.shape[1]
    meta = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "router": asdict(method.router),
        "balancing": {
            "name": balancing,
            "alpha": dict(method.balancing.alpha),
            "bias_rate": method.balancing.bias_rate,
            "window": "batch; sequence for the sequence-wise loss",
            "n_devices": N_DEVICES,
        },
        "n_experts": sizes.n_experts,
        "moe_layers": list(trained.snapshots[-1].logits),
        "model": asdict(sizes),
        "domains": list(DOMAINS),
        "held_out": list(HELD_OUT),
        "text_sha256": hashlib.sha256(text.tokens.tobytes()).hexdigest(),
        "loss_names": list(LOSS_NAMES),
        "loss_alpha": PUBLISHED_ALPHA,
        "counts_tokens": inside,
        "training": {
            "steps": plan.steps,
            "seconds": round(trained.seconds, 1),
            "tokens_seen": plan.steps * plan.batch_sequences * text.tokens.shape[1],
            "seed": plan.seed,
            "text_seed": TEXT_SEED,
            "learning_rate": plan.learning_rate,
            "batch_sequences": plan.batch_sequences,
            "device": plan.device,
            "threads": threads,
            "curve": trained.curve,
        },
        "provenance": {
            "moesim": moesim.__version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "text": corpus.provenance(),
        },
    }
    return {key: meta[key] for key in (*META_KEYS, "loss_alpha", "counts_tokens")}
