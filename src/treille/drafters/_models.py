"""What drafters that run a draft model share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.errors import ParameterError

if TYPE_CHECKING:
    from treille.drafters.base import Host, Shape


def draft_shape(host: Host, name: str) -> Shape:
    """Sizes of a draft model whose token ids are the target's.

    Raises:
        ParameterError: there is no such model, or it has another vocabulary.
    """
    shape = host.find_model(name)
    if shape.vocab_size != host.target.vocab_size:
        raise ParameterError(
            f"draft: model={name!r} has {shape.vocab_size} token ids, the target {host.target.vocab_size}; "
            "give a draft model with the target's tokenizer"
        )
    return shape
