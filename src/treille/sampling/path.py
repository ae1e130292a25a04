"""What a processor may know of a node: its path, and keyed randomness."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from treille.errors import InternalError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Scope = Literal["path", "output"]
"""Which tokens a rule looks at: ``path`` is the prompt and the output, ``output`` the output alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """The text from the root to one node, as processors see it.

    Attributes:
        tokens: int32 ``[n]``, prompt and output. A view that processors only read; it may be long.
        prompt_length: how many of the tokens are prompt; the rest are output.
        random: ``purpose -> uniform in [0, 1)`` for this node's next token, keyed by the request's seed, the
            position and the purpose. Only processors that draw (XTC) need it.
    """

    tokens: "NDArray[np.int32]"
    prompt_length: int
    random: Callable[[str], float] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def output(self) -> "NDArray[np.int32]":
        """The generated tokens, int32 ``[n - prompt_length]``, as a view."""
        return self.tokens[self.prompt_length :]

    @property
    def output_length(self) -> int:
        """How many tokens were generated."""
        return len(self.tokens) - self.prompt_length

    def within(self, scope: Scope, last_n: int | None = None) -> "NDArray[np.int32]":
        """The tokens in ``scope``, of those the last ``last_n`` (``None``: all), as a view."""
        tokens = self.tokens if scope == "path" else self.output
        return tokens if last_n is None else tokens[max(0, len(tokens) - last_n) :]

    def uniform(self, purpose: str) -> float:
        """The keyed uniform in [0, 1) for ``purpose``.

        Raises:
            InternalError: the path was built without randomness.
        """
        if self.random is None:
            raise InternalError(f"a processor draws for {purpose!r}, but the path carries no randomness")
        return self.random(purpose)
