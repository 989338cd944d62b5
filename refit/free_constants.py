"""Which constants of each shipped set are fitted: ``moesim/data/validate/free_constants.yaml``, read; it says why."""

from moesim.traffic import Place
from moesim.validate.fit_constants import Free
from moesim.validate.shipped_files import shipped_yaml

_PHASES = {"both": ("dispatch", "combine")}


def places_of(text: str) -> tuple[Place, ...]:
    """Read the places of one constant.

    ``both nic_rate``: one value for dispatch and combine; ``across dispatch fill_s``: of a phase across nodes;
    ``both slow.floor_s + fast.floor_s``: terms of two protocols that move together. Commas join what has no common
    phase.
    """
    found: list[Place] = []
    for part in text.replace(" + ", "+").split(", "):
        *across, phase, terms = part.split(" ")
        for one in _PHASES.get(phase, (phase,)):
            found += ((*across, one, *term.split(".")) for term in terms.split("+"))
    return tuple(found)


_PLAN = shipped_yaml("free_constants.yaml")
FREE: dict[str, tuple[Free, ...]] = {
    name: tuple(Free(places_of(text)) for text in constants) for name, constants in _PLAN["free"].items()
}
"""The free constants of each set, sets that others build on before them."""
BASE: dict[str, str] = _PLAN["base"]
"""Sets that take everything but their own free constants from another."""
