"""Compiled kernels out of numba's cache, without the half second in which numba loads all that it can compile with.

What numba knows of Python and numpy (its registries, and scipy with them) is needed to compile, not to run what lies in
the cache. There is no public way to leave it out. So this replaces one method of numba's, in the versions it was
written and tested for alone; whatever goes wrong, the kernel takes numba's own way.
"""

from typing import Any

import numba

KNOWN = ("0.68.",)
"""Versions of numba, as their numbers begin."""


def load_without_registries() -> None:
    """From now on load what is cached without the registries, if this numba is known."""
    if not numba.__version__.startswith(KNOWN):
        return
    from numba.core import caching, environment
    from numba.core.runtime.nrt import rtsys

    cache: Any = caching.FunctionCache
    module: Any = environment
    runtime: Any = rtsys
    usual, usual_environment = cache.load_overload, module._rebuild_env

    def load_overload(self: Any, signature: Any, target: Any) -> Any:
        try:
            runtime.initialize(target)
            module._rebuild_env = _without_module
            found = self._load_overload(signature, target)
        except Exception:
            found = None
        finally:
            module._rebuild_env = usual_environment
        return usual(self, signature, target) if found is None else found

    def _without_module(origin: str, constants: list[Any], name: str) -> Any:
        """An environment of a compiled function: numba's own ones would import the module that they came from."""
        if not origin.startswith("numba."):
            return usual_environment(origin, constants, name)
        found = module.lookup_environment(name)
        if found is None:
            found = module.Environment({"__name__": origin})
            found.consts[:] = constants
            found.env_name = name
            module.Environment._memo[name] = found
        return found

    cache.load_overload = load_overload
