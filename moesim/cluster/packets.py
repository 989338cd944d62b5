"""What packets do over spines that flows do not show: by the kind of fabric and how it spreads traffic.

Flows share links without queues. Packets queue for a moment where many paths meet, and where a full buffer pauses a
port (PFC, credits) or one path of a flow is full, they hold others back that would have had room. How long depends on
buffers that nobody states, so the first is a time and the second a factor that may be there.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moesim.located_yaml import load_yaml
from moesim.units import parse_duration

_DATA = Path(__file__).resolve().parent.parent / "data" / "packets.yaml"

FabricKind = Literal["roce", "infiniband", "ultra-ethernet"]
_WORDS = {"roce": "RoCE", "infiniband": "InfiniBand", "ultra-ethernet": "Ultra Ethernet"}


@dataclass(frozen=True)
class Packets:
    """What is added to flows over spines.

    Attributes:
        kind: of the fabric, in words.
        queues_s: transient queues; queues_range_s: least and most that was seen.
        slower: four of five take between once and this many times as long as the flows.
        source: where these come from, in words.
    """

    kind: str
    queues_s: float
    queues_range_s: tuple[float, float]
    slower: float
    source: str


@functools.cache
def packets_over_spines(kind: FabricKind | None, spreading: str, rails: bool) -> Packets | None:
    """Return what packets add on a fabric.

    Args:
        kind: of the fabric; None: ``roce`` where ECMP hashes, else ``infiniband``.
        spreading: over the spines: ``hash``, ``static`` or ``spray``.
        rails: the fabric is rail-optimised. Such clusters, where they spray, are what all-to-alls were measured on:
            their constants contain what packets do, and nothing is added.
    """
    if rails and spreading == "spray":
        return None
    kind = kind or ("roce" if spreading == "hash" else "infiniband")
    found = load_yaml(_DATA).data[kind]["spray" if spreading == "spray" else "hash"]
    least, most = map(parse_duration, found["queues_range"])
    how = {"hash": "hashed", "static": "static", "spray": "sprayed"}[spreading]
    source = f"packet simulations, {found['source']}"
    words = f"{how} {_WORDS[kind]}"
    return Packets(words, parse_duration(found["queues"]), (least, most), float(found["slower"]), source)
