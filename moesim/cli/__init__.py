"""The command line. Nothing heavy is imported before a command needs it."""

import signal
import threading

_quiet = threading.current_thread() is threading.main_thread() and (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
if _quiet:  # Ctrl-C while the parser is loaded ends the process without a traceback; ``main`` says more
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from moesim.cli.app import main  # noqa: E402

if _quiet:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["main"]
