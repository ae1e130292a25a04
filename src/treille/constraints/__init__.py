"""Constraints: which tokens may follow a text, under any strategy and any drafter."""

from treille.constraints.base import Constraint, Source, Tokenization
from treille.constraints.budget import BudgetConstraint
from treille.constraints.choices import choices
from treille.constraints.grammar import grammar
from treille.constraints.healing import Healed, heal
from treille.constraints.json_schema import json_object, json_schema
from treille.constraints.regex import regex
from treille.constraints.trie import trie
from treille.constraints.trigger import after
from treille.constraints.vocabulary import Vocabulary

__all__ = [
    "BudgetConstraint",
    "Constraint",
    "Healed",
    "Source",
    "Tokenization",
    "Vocabulary",
    "after",
    "choices",
    "grammar",
    "heal",
    "json_object",
    "json_schema",
    "regex",
    "trie",
]
