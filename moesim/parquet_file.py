"""A user's Parquet file, read by a child process: a crafted one can make its reader crash, and not only raise."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moesim.broken_files import reading
from moesim.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_CHILD = Path(__file__).with_name("parquet_child.py")


def read_parquet(path: Path, numbers: bool = False) -> "pa.Table":
    """Return the columns of a Parquet file; with ``numbers`` those of numbers and of lists of them.

    The names of the others are the schema's metadata "left out", a JSON list.

    Raises:
        InputError: no whole Parquet file, no such column, or values that would take far more room than the file.
    """
    import pyarrow as pa

    with reading(path):
        # In a child without the environment's Python settings, that has no more memory and time than it sets itself.
        command = [sys.executable, "-I", str(_CHILD), str(path.resolve()), "numbers" if numbers else "all"]
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - this Python, no shell
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            what = said[-1] if said and done.returncode > 0 else f"its reader ended by signal {-done.returncode}"
            raise InputError(f"cannot be read: {what:.300}", str(path), "is it a whole Parquet file?")
        return pa.ipc.open_stream(done.stdout).read_all()
