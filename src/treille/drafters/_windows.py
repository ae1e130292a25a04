"""What drafters share that guess several tokens at once and correct the guesses in the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

    from treille.draft_tree import DraftTree

_SCATTER = 0x9E3779B1
"""A multiplier whose products look random (Knuth, TAOCP 3, 6.4)."""


def filler(text: NDArray[Any], position: int, eos_token_ids: AbstractSet[int] = frozenset()) -> int:
    """A token for a position that nothing is known of: one of the text's own, the same in every run.

    Never one of `eos_token_ids` unless the text has no other, since nothing is drafted below the end of a text.
    """
    start = (((position * _SCATTER) & 0xFFFFFFFF) * len(text)) >> 32
    for offset in range(len(text)):
        token = int(text[(start + offset) % len(text)])
        if token not in eos_token_ids:
            return token
    return int(text[start])


def chain(tree: DraftTree, tokens: Sequence[int], above: int = 0) -> list[int]:
    """The nodes of `tokens` one below the other under `above`, as far as they stand in the tree."""
    found: list[int] = []
    for token in tokens:
        at = tree.child(above, token)
        if at is None:
            break
        found.append(at)
        above = at
    return found
