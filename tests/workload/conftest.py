import numpy as np
import pytest
from made_up_recording import DOMAINS, SEQUENCE, MadeUpRecording, plausible_logits


@pytest.fixture(scope="session")
def recording() -> MadeUpRecording:
    """2,048 tokens of layer 2, the first 512 of layers 1 and 3, 128 at step 0; domain ``names`` held out."""
    tokens, experts, held = 2048, 64, {1: 512, 2: 2048, 3: 512}
    logits = {layer: plausible_logits(tokens, experts, 0.1, seed=layer) for layer in held}
    bias = np.arange(experts, dtype=np.float32) / 1e5
    sequence = (np.arange(tokens) // SEQUENCE).astype(np.int32)
    return MadeUpRecording(
        name="made-up",
        n_experts=experts,
        layers=tuple(held),
        sequence=sequence,
        domain=(sequence % len(DOMAINS)).astype(np.int8),
        domain_names=DOMAINS,
        held_out=("names",),
        snapshots={
            "last": {layer: (logits[layer][:known], bias * layer) for layer, known in held.items()},
            0: {layer: (logits[layer][:128] / np.float16(2), 0 * bias) for layer in held},
        },
    )
