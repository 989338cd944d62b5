"""Tables, summary and provenance of a run, in memory and on disk."""

from moesim.results.result import SCHEMA_VERSION, Note, Result, load_result
from moesim.results.tables import TableBuilder, Tables, nulls

__all__ = ["SCHEMA_VERSION", "Note", "Result", "TableBuilder", "Tables", "load_result", "nulls"]
