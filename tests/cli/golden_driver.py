"""Type commands one after the other in this process: ``golden_driver.py COMMANDS``, JSON of (arguments, folder) each.

What a command prints is kept in its folder, the folder's own path left out of it.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

from moesim.cli import main

if __name__ == "__main__":
    failed = []
    for arguments, folder in json.loads(Path(sys.argv[1]).read_text()):
        sys.argv = ["moesim", *arguments]
        said, begin = io.StringIO(), time.process_time()
        with contextlib.redirect_stdout(said):
            try:
                main()
            except SystemExit as left:
                failed += [f"{left.code}: moesim {' '.join(arguments)}"] if left.code else []
        print(f"{time.process_time() - begin:5.1f} s of CPU  {Path(folder).name}", file=sys.stderr, flush=True)
        Path(folder, "stdout").write_text(said.getvalue().replace(folder, "FOLDER"), "utf-8")
    assert not failed, failed
