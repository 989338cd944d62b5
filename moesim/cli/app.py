"""Entry point: one place that turns errors into one line and an exit code.

Exit codes: 0 ok, 2 bad input, 3 environment, 4 a threshold missed or a point of a sweep failed, 70 broken invariant,
130 interrupted, 143 terminated (a sweep that got SIGTERM; its finished points are kept).
"""

import gc
import os
import sys
import traceback
from importlib import import_module

import typer

from moesim import __version__
from moesim.cli.completion import offer_values
from moesim.cli.idle_options import refuse_idle_options
from moesim.cli.outlet import Outlet
from moesim.compiling import CompileInsteadError
from moesim.errors import MoesimError
from moesim.files import command_line
from moesim.warm_up import end_aside

# Every verb, and every group of verbs, where it is.
_VERBS = {
    "run": "run.run", "report": "run.report", "balance": "balance.balance", "compare": "compare.compare",
    "explain": "inspect.explain", "trace": "inspect.trace", "schema": "inspect.schema", "model": "model.model",
    "place": "place.place", "plan": "plan.plan", "profile": "profile.profile", "sweep": "sweep.sweep",
    "bw": "tools.bw", "record": "tools.record", "validate": "validate.validate", "calibrate": "calibrate.calibrate",
    "what-breaks": "what_breaks.what_breaks", "topo": "inspect.topo", "kernels": "kernels.group",
    "replay": "replay.group", "routing": "routing.group",
}  # fmt: skip


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moesim {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_show_version, is_eager=True),
) -> None:
    pass


def program(verb: str = "") -> typer.Typer:
    """Return the command line with all its verbs; with the one that is wanted alone, it is sooner there."""
    app = typer.Typer(
        name="moesim",
        help="What happens when a Mixture-of-Experts layer meets a GPU cluster: tokens, links, times.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for place in [_VERBS[verb]] if verb in _VERBS else _VERBS.values():
        module, name = place.split(".")
        found = getattr(import_module(f"moesim.cli.{module}"), name)
        if isinstance(found, typer.Typer):
            app.add_typer(found)
        else:
            app.command()(found)
    offer_values(app)
    refuse_idle_options(app)
    return app


def main() -> None:
    """Run the command line; a mistake is one line on stderr and an exit code, never a traceback."""
    # The arrays here are small: BLAS on many threads takes longer to start and wait than it saves.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Most of what a short run makes are libraries that stay: looking for garbage in them took 75 ms of its second.
    gc.set_threshold(10_000, 20, 10)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Outlet(before[0]), Outlet(before[1])
    try:
        code = _main()
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before
    if code == 130:  # an interrupt inside a text that ran as code has Python kill itself at its end, unless another ran
        exec("")  # noqa: S102 - nothing
    sys.exit(code)


def _main() -> int:
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    command_line[:] = arguments
    try:
        code = program(*arguments[:1])(args=arguments, prog_name="moesim", standalone_mode=False)
        if code == 130:  # the parser has caught the interrupt and says nothing
            raise KeyboardInterrupt
    except CompileInsteadError:
        os.execve(sys.executable, sys.orig_argv, os.environ | {"MOESIM_INTERPRET": "0"})  # noqa: S606 - ourselves again
    except MoesimError as error:
        code = _failed(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        end_aside()
        code = _failed("interrupted", 130, debug)
    except OSError as error:
        code = _failed(f"{error.filename or 'system'}: {error.strerror or error}", 3, debug)
    except MemoryError as error:
        code = _failed(f"more memory is needed than there is: {error or 'ask for less'}", 2, debug)
    except Exception as error:
        if _was_interrupted(error):
            end_aside()
            code = _failed("interrupted", 130, debug)
        elif hasattr(error, "format_message"):  # the parser's own: wrong option, missing argument
            code = _failed(f"{error.format_message()}; see moesim --help", 2, debug)
        else:
            code = _failed(_internal(error), 70, debug)
    return code or 0


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether an error came from an interrupt: a library that is being loaded makes errors of its own of one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _internal(error: Exception) -> str:
    return f"internal error: {type(error).__name__}: {error}; run again with --debug and report it"


def _failed(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    typer.echo(f"moesim: {message}" if code != 2 else message, err=True)
    return code
