"""How the constants that ship are fitted again: for maintainers, from the root of the project.

    python -m refit --help

The measured rows behind most of them are not part of the project; ``--reference`` names their folder. What a user fits,
to their own measurements, is in the package: ``moesim calibrate``.
"""
