"""The three ways in which moesim refuses to go on, and the exit code of each.

Raised where the fact is known, shown once by the command line, never swallowed in between.
"""


class MoesimError(Exception):
    """Base of the errors that the command line turns into one line on stderr."""

    exit_code = 70


class InputError(MoesimError, ValueError):
    """Something the user gave cannot be used: says where, what is wrong and what would be right.

    ``where`` is ``file:line:column`` for text files, a file, a field or an argument otherwise.
    A file with several mistakes carries them all in ``others``, so that they are shown at once.
    """

    exit_code = 2

    def __init__(self, what: str, where: str = "", fix: str = "", others: tuple["InputError", ...] = ()) -> None:
        self.what, self.where, self.fix, self.others = what, where, fix, others
        super().__init__(what, where, fix)

    def line(self) -> str:
        """Return the mistake in one line."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        text = f"{text}; {self.fix}" if self.fix else text
        # Names come from files: an escape sequence in one must not reach the terminal.
        printable = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
        return printable[:500]

    def __str__(self) -> str:
        return "\n".join(error.line() for error in (self, *self.others))


class ResourceError(MoesimError):
    """The environment failed us: disk, permission, lock, a missing optional package."""

    exit_code = 3


class InvariantError(MoesimError):
    """A law that the simulator must keep (bytes conserved, capacity respected) was broken: our bug."""

    exit_code = 70
