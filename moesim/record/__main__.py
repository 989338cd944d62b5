"""``python -m moesim.record``: the same as ``moesim record``."""

import argparse
import sys

from moesim.errors import MoesimError
from moesim.record import METHODS, SIZES, record, to_stderr


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, record, print one line per layer; return the exit code."""
    parser = argparse.ArgumentParser("python -m moesim.record", description="Train a small model, record its routers.")
    parser.add_argument("--out", required=True, help="file to write, .npz")
    parser.add_argument("--balancing", default="v3", choices=METHODS)
    parser.add_argument("--steps", type=int, help="training steps, exactly")
    parser.add_argument("--seconds", type=float, help="training time; decides the number of steps (default 420)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches; the recorded text has its own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--size", default="tiny", choices=SIZES)
    parser.add_argument("--batch-sequences", type=int, default=8, help="sequences of 256 bytes per step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--bias-rate", type=float, help="step of the bias, v3 only")
    try:
        recording = record(progress=to_stderr, **vars(parser.parse_args(arguments)))
    except MoesimError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for row, layer in enumerate(recording.layers):
        load = recording.counts[-1, row]
        print(f"layer {layer}: expert load max/mean {load.max() / load.mean():.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
