"""One import under way: the file, the GPU that it must be of, and what the reader should know about the rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from moesim.compute.gpus import Gpu


@dataclass
class Job:
    """What a format's reader may look at beside the record, and where it leaves its notes."""

    path: Path
    gpu: Gpu
    notes: dict[str, None] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Keep a note, once; an empty one says nothing."""
        if text:
            self.notes[text] = None
