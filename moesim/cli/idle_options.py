"""Options that have no effect beside others are refused: who types one expects something of it.

Left alone is what changes neither a number nor a file: --jobs, --wait, --quiet.
"""

from typing import Any

import typer


def refuse_idle(typed: typer.Context, names: str, why: str) -> None:
    """Refuse options and arguments that were typed where they have no effect.

    Args:
        typed: the verb's own context.
        names: parameters of the verb's function, with blanks between.
        why: ``without --context``.

    Raises:
        InputError: names them as they are typed.
    """
    from moesim.errors import InputError

    idle = [
        _as_typed(one)
        for one in typed.command.params
        if one.name in names.split() and getattr(typed.get_parameter_source(one.name), "name", "") == "COMMANDLINE"
    ]
    if idle:
        have = "has" if len(idle) == 1 else "have"
        raise InputError(
            f"{', '.join(idle)} {have} no effect {why}", fix=f"leave {'it' if have == 'has' else 'them'} out"
        )


def _as_typed(one: Any) -> str:
    """An argument in capitals as the help has it; the longest name of an option, and its opposite."""
    names = [max(one.opts, key=len, default="").strip(), *one.secondary_opts]
    return str(one.name).upper() if one.param_type_name == "argument" else "/".join(filter(None, names))
