"""``python -m moesim`` is the command line."""

from moesim.cli import main

main()
