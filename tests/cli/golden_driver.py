"""Type commands one after the other in this process: ``golden_driver.py COMMANDS``, JSON of (arguments, folder) each.

What a command prints is kept in its folder, the folder's own path left out of it.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from moesim.cli import main

if __name__ == "__main__":
    for arguments, folder in json.loads(Path(sys.argv[1]).read_text()):
        sys.argv = ["moesim", *arguments]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            try:
                main()
            except SystemExit as left:
                assert not left.code, f"{left.code}: moesim {' '.join(arguments)}"
        Path(folder, "stdout").write_text(said.getvalue().replace(folder, "FOLDER"), "utf-8")
