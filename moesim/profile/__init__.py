"""Times the kernels of an MoE layer on the GPU at hand and writes them as a table that moesim can price with.

Needs PyTorch and the standard library, nothing else: ``python -m moesim.profile`` runs where numpy, pydantic and
typer are absent. Importing this package loads none of them, nor PyTorch.
"""

from moesim.profile.csv_columns import COLUMNS, KEY_COLUMNS, SCHEMA_VERSION

__all__ = ["COLUMNS", "KEY_COLUMNS", "SCHEMA_VERSION"]
