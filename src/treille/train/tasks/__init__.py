"""The task suite: questions keyed by seed with two disjoint splits, and exact checkers. Standard library only."""

from treille.train.tasks.base import Example, Task, split_of
from treille.train.tasks.documents import Piece, documents, pieces, training_examples
from treille.train.tasks.sources import python_files, python_functions
from treille.train.tasks.suite import TASKS

__all__ = [
    "TASKS",
    "Example",
    "Piece",
    "Task",
    "documents",
    "pieces",
    "python_files",
    "python_functions",
    "split_of",
    "training_examples",
]
