"""Tables, summary and provenance of a run, in memory and on disk."""

from moesim.results.definitions import COMPONENTS, SOURCES, SUMMARY
from moesim.results.result import SCHEMA_VERSION, Note, Result, load_result
from moesim.results.tables import TableBuilder, Tables, nulls
from moesim.results.terms import Share, Term, combined

__all__ = [
    "COMPONENTS",
    "SCHEMA_VERSION",
    "SOURCES",
    "SUMMARY",
    "Note",
    "Result",
    "Share",
    "TableBuilder",
    "Tables",
    "Term",
    "combined",
    "load_result",
    "nulls",
]
