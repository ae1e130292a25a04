"""Decoding with fewer layers: another law than the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treille.requests import Forward, Layers
from treille.strategies._checks import returns
from treille.strategy import Output, Run, strategy

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from treille.requests import Request


@strategy(
    paper="Liu, Meng and Zhou 2024, Unified Layer Skipping, arXiv:2404.06954",
    exactness="lossy: the law of a shallower model, not of this one",
    cost="1 forward of the remaining layers per token, and a whole one for the prompt",
    do_sample=True,
)
def lossy_layer_skip(run: Run, skip: Sequence[int] = ()) -> Generator[Request, Any, Output]:
    """Decoding without the layers in `skip`: faster, and not the model's text (temperature 0: greedy).

    The prompt is read by all layers, every token after it by the others. The paper keeps the first and the last layer
    and multiples of one interval, the same for every input, and fine-tunes the model so; a model that was not trained
    for it loses much. `draft="layer_skip"` leaves out the same layers and keeps the law.
    """
    returns(run, "lossy_layer_skip", 1, "run it once for every text")
    layers, since = Layers.without(skip), run.tip.length
    hypothesis = run.start
    while hypothesis.finish_reason is None:
        node = hypothesis.node
        if node is run.tip or not skip:
            (choice,) = yield Forward((node,), run.choose)
        else:
            (choice,) = yield Forward((node,), run.choose, layers=layers, since=since)
        hypothesis = run.extend(hypothesis, choice)
        run.settle(hypothesis.node)
    return Output((hypothesis,))
