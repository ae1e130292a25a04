"""VocabTrim: a draft model that proposes common tokens only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.drafters.base import drafter
from treille.drafters.draft_model import draft_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from treille.drafters._vocabulary import Keep
    from treille.drafters.base import Host


@drafter(
    paper="Goel et al. 2025, VocabTrim, arXiv:2506.22694; Zhao et al. 2025, FR-Spec, arXiv:2502.14856",
    cost="k passes of the draft model and k rows of the target per step; one count per token of the text",
)
class vocab_trim(draft_model):  # noqa: N801 - one name in five places
    """VocabTrim: the chain of a draft model, kept to the tokens that are used most.

    A drafted token's law is the draft's law without the other tokens, renormalised; what the target says beyond them
    comes from the residual.
    """

    def __init__(self, host: Host, k: int = 4, model: str = "draft", keep: Keep = 512) -> None:
        super().__init__(host, k, model, keep)


def most_used(texts: Iterable[Sequence[int]], k: int, always: Iterable[int] = ()) -> list[int]:
    """The k token ids that occur most often in `texts`, ascending, `always` among them: a list for `keep=`.

    Args:
        texts: token ids, best of texts that the target generated on prompts like those to come.
        k: how many; more if `always` has more.
        always: ids to keep in any case, such as control tokens, digits, and what a grammar in use forces.
    """
    counts: dict[int, int] = {}
    for text in texts:
        for token in text:
            counts[int(token)] = counts.get(int(token), 0) + 1
    kept = {int(token) for token in always}
    for token in sorted(counts, key=lambda token: (-counts[token], token)):
        if len(kept) >= k:
            break
        kept.add(token)
    return sorted(kept)
