"""``python -m moesim.profile``: the same as ``moesim profile``, with nothing installed but PyTorch."""

import argparse
import sys

from moesim.errors import MoesimError, ResourceError
from moesim.profile.command import DEFAULT_BUDGET_S, run


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, measure, print what came out; return the exit code."""
    parser = argparse.ArgumentParser("python -m moesim.profile", description="Time the kernels of an MoE layer.")
    parser.add_argument("--out", required=True, help="table to write or continue, .csv")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu at small sizes (default cuda)")
    parser.add_argument("--budget", type=float, default=DEFAULT_BUDGET_S, help="seconds (default 480)")
    parser.add_argument("--quick", action="store_true", help="the coarsest points of the largest model alone")
    parser.add_argument("--families", help="comma-separated; default all")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress on stderr")
    given = parser.parse_args(arguments)
    try:
        print(run(**vars(given)))
    except MoesimError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return ResourceError.exit_code
    except KeyboardInterrupt:
        print("interrupted: run the same command again, it goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
