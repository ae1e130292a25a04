"""All tasks by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.train.tasks.arithmetic import ARITHMETIC
from treille.train.tasks.countdown import COUNTDOWN
from treille.train.tasks.extract import EXTRACT
from treille.train.tasks.json_records import JSON
from treille.train.tasks.knowledge_graph import KNOWLEDGE_GRAPH
from treille.train.tasks.lists import LISTS
from treille.train.tasks.python_edit import PYTHON_EDIT
from treille.train.tasks.python_fill import PYTHON_FILL
from treille.train.tasks.recommend import RECOMMEND
from treille.train.tasks.revise import REVISE
from treille.train.tasks.rewrite import REWRITE

if TYPE_CHECKING:
    from treille.train.tasks.base import Task

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        PYTHON_EDIT, PYTHON_FILL, JSON, ARITHMETIC, COUNTDOWN, LISTS, EXTRACT, REWRITE, KNOWLEDGE_GRAPH, RECOMMEND,
        REVISE,
    )
}  # fmt: skip
