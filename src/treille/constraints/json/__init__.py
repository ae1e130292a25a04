"""JSON Schema beyond masks: an incremental validator of all of drafts 2020-12, 2019-09 and 7.

::

    program = Program.compile({"type": "array", "uniqueItems": True})
    state = program.start().feed(b"[1, 2")      # a State; feeding it leaves it as it is
    state.feed(b", 1.0]")                       # a Violation: uniqueItems

It runs beside a token mask, for the keywords that the mask does not express (`needs_second_layer`), or alone.
"""

from treille.constraints.json.documents import Draft, SchemaRefused
from treille.constraints.json.formats import FORMATS
from treille.constraints.json.program import Program, State
from treille.constraints.json.report import Enforcement, Violation, needs_second_layer, with_mask

__all__ = [
    "FORMATS",
    "Draft",
    "Enforcement",
    "Program",
    "SchemaRefused",
    "State",
    "Violation",
    "needs_second_layer",
    "with_mask",
]
