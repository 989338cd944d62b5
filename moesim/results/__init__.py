"""Tables, summary and provenance of a run, in memory and on disk."""

from moesim.results.bands import BANDED, ENDS, Z80, Moves, intervals, ratio_spread, told_apart
from moesim.results.criticality import How, PairCost, RankedFault, WhatBreaks
from moesim.results.definitions import COMPONENTS, DEFINITIONS, SOURCES, STEP_SUMMARY, SUMMARY, TRAINING_SUMMARY, Value
from moesim.results.folder_schema import SCHEMA_VERSION, made_of, unpacked_trace
from moesim.results.placement import Ageing, PlacementOption, PlacementVerdict, percent, whole
from moesim.results.result import Note, Result, load_result
from moesim.results.tables import TableBuilder, Tables, nulls
from moesim.results.terms import Share, Term, combined, ratio

__all__ = [
    "BANDED",
    "COMPONENTS",
    "DEFINITIONS",
    "ENDS",
    "SCHEMA_VERSION",
    "SOURCES",
    "STEP_SUMMARY",
    "SUMMARY",
    "TRAINING_SUMMARY",
    "Z80",
    "Ageing",
    "How",
    "Moves",
    "Note",
    "PairCost",
    "PlacementOption",
    "PlacementVerdict",
    "RankedFault",
    "Result",
    "Share",
    "TableBuilder",
    "Tables",
    "Term",
    "Value",
    "WhatBreaks",
    "combined",
    "intervals",
    "load_result",
    "made_of",
    "nulls",
    "percent",
    "ratio",
    "ratio_spread",
    "told_apart",
    "unpacked_trace",
    "whole",
]
