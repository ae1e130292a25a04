"""Proof by enumeration: tables of rationals as models, and strategies driven without an engine."""

from treille.testing.alone import Alone, run_alone
from treille.testing.enumerate import ScriptedRandom, enumerate_outputs
from treille.testing.lossless import assert_lossless, describe_difference
from treille.testing.table import Letters, TableModel
from treille.testing.words import Words

__all__ = [
    "Alone",
    "Letters",
    "ScriptedRandom",
    "TableModel",
    "Words",
    "assert_lossless",
    "describe_difference",
    "enumerate_outputs",
    "run_alone",
]
