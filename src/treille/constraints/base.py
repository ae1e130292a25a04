"""The protocol of constraints: which tokens may follow a path.

A *source* is what the user writes: a frozen description such as ``regex("[a-z]+")``. Compiled for a vocabulary it is a
*constraint*, which is immutable and may be shared by requests and threads. What a constraint knows about a text is a
*state*: a value that a tree node holds. States are forked by advancing one of them twice, and never replayed.

The contract of every constraint, tested by enumeration in ``tests/laws``:

* ``advance(s, t) is not None`` iff bit ``t`` of the mask of ``s`` is set, with drafts and without; where the mask is
  *vague* only if it is set, and every token has to be checked by `advance`;
* end-of-sequence tokens are set, all of them, iff ``is_final(s)``; after one of them the mask is empty;
* padding ids and special tokens are never set, unless the source names a special token.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from treille.constraints.vocabulary import Vocabulary

S = TypeVar("S")
Tokenization = Literal["any", "canonical"]
"""Which spellings of an allowed text are allowed.

``any``: all of them; the mask is exact. ``canonical``: where bytes are forced, only the tokenizer's own next token.
"""


class Constraint(Protocol[S]):
    """Which tokens may follow a path, for one vocabulary; immutable and shareable. ``S`` is its type of state."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary it is compiled for."""

    @property
    def loose(self) -> bool:
        """Whether masks are vague everywhere, and a text may come to a dead end."""

    @property
    def unenforced(self) -> tuple[str, ...]:
        """What the source asks for and this constraint does not enforce, because its user allowed that."""

    def start(self) -> S:
        """The state of the empty text."""

    def advance(self, state: S, token: int) -> S | None:
        """The state after ``token``, or None where it is not allowed; the work does not grow with the text.

        Raises:
            DecodingError: A limit of the recognizer was reached, which says nothing about the token.
        """

    def masks(self, states: Sequence[S], out: NDArray[np.int32]) -> None:
        """One mask per state in `out`: int32 ``[N, ceil(W / 32)]``, C-contiguous, bit ``t & 31`` of word ``t >> 5``.

        May be called from another thread than `advance`, and lets other Python threads run while it works.

        Raises:
            DecodingError: A limit of the recognizer was reached for one of the states.
        """

    def accepted(self, state: S, tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, are allowed: a drafted chain, without a state per token."""

    def vague(self, state: S) -> int:
        """Of how many of the most probable tokens that the mask of this state allows `advance` may refuse some.

        0: the mask is exact. Otherwise no token may be taken unchecked, and so many are checked for the mass they have.
        """

    def sure(self, state: S) -> NDArray[np.bool_] | None:
        """Tokens that `advance` allows wherever the mask does, bool ``[W]``; None where that is not known."""

    def essence(self, text: bytes) -> bytes:
        """The same for texts after which the same may follow, as far as that is known."""

    def forced(self, state: S) -> tuple[int, ...]:
        """The tokens that must follow: as long as the mask has one bit. Appending them changes no law."""

    def expected(self, state: S) -> tuple[int, ...]:
        """The likely spelling of bytes that must follow although their tokens are free: a draft, and no promise."""

    def is_final(self, state: S) -> bool:
        """Whether the text may end here."""

    def closing(self, state: S, enough: int = 0) -> tuple[int, ...] | None:
        """Few tokens that complete the text, none where it may end here; None where no completion was found.

        An upper bound for the shortest completion, as short as the constraint finds with bounded work. No shorter one
        need be looked for where `enough` tokens are as good.
        """

    def text(self, state: S) -> bytes:
        """The text of a state; used in messages."""

    def refusal(self, state: S) -> str:
        """Why `advance` refuses a token that the mask of `state` allows; empty if it refuses none."""


class Exact:
    """What constraints have in common whose masks allow exactly what `advance` does.

    Attributes:
        loose: no.
        unenforced: nothing is left out.
    """

    loose: bool = False
    unenforced: tuple[str, ...] = ()

    def refusal(self, state: Any) -> str:  # noqa: ARG002 - the protocol's signature
        """Nothing is refused that a mask allows."""
        return ""

    def expected(self, state: Any) -> tuple[int, ...]:  # noqa: ARG002
        """Nothing is known beyond what is forced."""
        return ()

    def vague(self, state: Any) -> int:  # noqa: ARG002
        """Masks are exact."""
        return 0

    def sure(self, state: Any) -> None:
        """Nobody asks: masks are exact."""

    def essence(self, text: bytes) -> bytes:
        """The text."""
        return text


def count_accepted(constraint: Constraint[S], state: S, tokens: Sequence[int]) -> int:
    """`Constraint.accepted` by advancing: its specification."""
    for index, token in enumerate(tokens):
        after = constraint.advance(state, token)
        if after is None:
            return index
        state = after
    return len(tokens)


@runtime_checkable
class Source(Protocol):
    """What a user writes: a frozen, hashable description of a language."""

    def compile(self, vocabulary: Vocabulary, tokenization: Tokenization = "any") -> Constraint[Any]:
        """The constraint for a vocabulary.

        Raises:
            ParameterError: The description is wrong, too large, or no text satisfies it.
        """

    def prefixed(self, prefix: str) -> "Source":
        """The source of all texts that are `prefix` followed by a text of this one; for token healing."""

    def check(self, text: str) -> None:
        """Nothing, if a finished text is found to be one of this language by other means, or there are none.

        Raises:
            InternalError: It is not.
        """

    def parse(self, text: str) -> Any:
        """What a text of the language stands for: a parsed document, or the text itself."""
