"""Options that have no effect beside others are refused: who types one expects something of it.

Left alone is what changes neither a number nor a file: --jobs, --wait, --quiet.
"""

from typing import Any

import typer
from typer.core import TyperCommand

_OF_MODEL = "requests new gpu ep redundant weights"
_OF_TRAINING = "method every sequences length layers domains domain_steps bias_update bias_form fit_on against out"
_DASK = {"with dask": "scheduler_file"}
# By verb: with or without which parameter others have no effect.
_IDLE: dict[str, dict[str, str]] = {
    "model": {"without name": f"context {_OF_MODEL}", "without context": _OF_MODEL},
    "run": {"with quick": "out figures page band max_mem"},
    "sweep": {"without random": "random_seed"} | _DASK,
    "plan": _DASK,
    "what-breaks": _DASK,
    "balance": {"with logits_fixed": _OF_TRAINING, "without logits_fixed": "from_zero",
                "without domains": "domain_steps"},
    "validate": {"with files": "file tables reference every_row page steps", "without files": "given fail_over",
                 "with steps": "tables reference every_row page", "without steps": "file"},
    "replay import": {"with matrix": "phase layer copies"},
    "topo import": {"without fabric": "spines nodes_per_leaf"},
}  # fmt: skip


class _Verb(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        from moesim.errors import InputError

        typed = {one.name for one in self.params if str(ctx.get_parameter_source(one.name)).endswith("COMMANDLINE")}
        names = {one.name: _as_typed(one) for one in self.params}
        for beside, idle in _IDLE.get(" ".join(ctx.command_path.split()[1:]), {}).items():
            have, other = beside.split()
            found = [name for one, name in names.items() if one in typed and one in idle.split()]
            if found and bool(ctx.params[other]) == (have == "with"):
                what = f"{', '.join(found)} {'has' if len(found) == 1 else 'have'} no effect {have} {names[other]}"
                raise InputError(what, fix=f"leave {'it' if len(found) == 1 else 'them'} out")
        return super().invoke(ctx)


def _as_typed(one: Any) -> str:
    """An argument in capitals as the help has it; the longest name of an option, and its opposite."""
    names = [max(one.opts, key=len, default="").strip(), *one.secondary_opts]
    return str(one.name).upper() if one.param_type_name == "argument" else "/".join(filter(None, names))


def refuse_idle_options(app: typer.Typer) -> None:
    """Let every verb refuse options that were typed and have no effect."""
    for group in (app, *(below.typer_instance for below in app.registered_groups)):
        for command in group.registered_commands if group is not None else ():
            command.cls = _Verb
