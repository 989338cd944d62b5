"""Which point the process died in, remembered across its death.

An error of a kernel is caught and becomes a row; a crash of the whole process (or of the driver under it) is not.
The point at hand therefore stands in ``NAME.at`` while it is measured. A point that took the process with it twice
is given up, so that a run can be repeated until it ends.
"""

import json
from pathlib import Path

GIVE_UP = 2


class Attempts:
    """The file ``NAME.at`` beside a table; it is there only while a run is, or after one that died."""

    def __init__(self, table: Path) -> None:
        """Read what an earlier process left, if one died."""
        self.path = table.with_suffix(".at")
        self._point, self._deaths = "", 0
        try:
            left = json.loads(self.path.read_bytes())
            self._point, self._deaths = str(left["point"]), int(left["begun"])
        except (OSError, ValueError, TypeError, KeyError):
            pass  # nobody died, or while writing it

    def hopeless(self, point: str) -> bool:
        """Has the process died in ``point`` so often that it is given up?"""
        return point == self._point and self._deaths >= GIVE_UP

    def begin(self, point: str) -> None:
        """Say that ``point`` is being measured."""
        begun = 1 + (self._deaths if point == self._point else 0)
        self.path.write_text(json.dumps({"point": point, "begun": begun}), encoding="utf-8")

    def end(self) -> None:
        """The run is over and nobody died."""
        self.path.unlink(missing_ok=True)
