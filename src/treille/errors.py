"""Every exception that Treille raises.

::

    TreilleError
    ├── UserError (also ValueError)    the request cannot be honoured; nothing was computed
    │   ├── ParameterError             a value, with the reason and the way out
    │   ├── CheckpointError            a model directory: names the file and the key
    │   └── CapacityError              can never fit: longer than the context or the KV memory
    ├── DecodingError                  raised while decoding, for one request; the others go on
    │   ├── BatchError                 some prompts of a batch failed; holds what the others gave
    │   ├── NoTokenLeft                processors or a constraint masked the whole vocabulary
    │   └── StrategyError              a strategy yielded something that is not a request
    ├── Cancelled                      the request was closed by its caller
    └── InternalError                  a bug of Treille: please report it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class TreilleError(Exception):
    """Base of all exceptions of this package."""


class UserError(TreilleError, ValueError):
    """The request cannot be honoured; raised before the first token."""


class ParameterError(UserError):
    """A parameter's value is refused; the message names value, reason and way out."""


class CheckpointError(UserError):
    """A model directory cannot be loaded; the message names the file and the key."""


class CapacityError(UserError):
    """The request can never fit the context length or the KV memory."""


class DecodingError(TreilleError):
    """One request failed while decoding; the rest of its batch is unaffected."""


class BatchError(DecodingError):
    """Some prompts of a batch failed while decoding.

    Attributes:
        results: one entry per prompt: its `Generation`, or the exception that ended it.
    """

    def __init__(self, message: str, results: Sequence[Any]) -> None:
        super().__init__(message)
        self.results = list(results)


class NoTokenLeft(DecodingError):
    """Processors or a constraint masked every token of the vocabulary."""


class StrategyError(DecodingError):
    """A strategy yielded something that is not a request."""


class Cancelled(TreilleError):
    """The request was closed by its caller."""


class InternalError(TreilleError):
    """This should never happen. If you see it, please report it with the trace."""

    def __str__(self) -> str:
        return f"{super().__str__()} (this is a bug of Treille: please report it)"
