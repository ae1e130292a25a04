"""Why a forward cannot be computed: found before it joins a batch, so that it can never hurt the others in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treille.engine.batch import uncomputed
from treille.errors import CapacityError, ParameterError, StrategyError, TreilleError
from treille.models.decoder import Decoder
from treille.requests import Argmax, Attention, Distribution, Hidden, LogProbs, Probabilities, Sample, TopK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from treille.engine.runner import ModelRunner
    from treille.requests import Forward
    from treille.tree import Node


def refusal(request: Forward, runners: Mapping[str, ModelRunner]) -> TreilleError | None:
    """The error that a strategy is sent instead of an answer, None if the request can be computed."""
    runner = runners.get(request.model)
    if runner is None:
        known = ", ".join(sorted(runners))
        return ParameterError(f"Forward(model={request.model!r}): no such model here; known are {known}")
    if not request.nodes:
        return StrategyError("a Forward needs at least one node")
    shape = runner.decoder.shape
    length = max(node.length for node in request.nodes)
    if length > shape.context_length:
        return CapacityError(
            f"position {length - 1} is beyond the context of {shape.context_length} tokens of model {runner.name!r}; "
            "lower max_new_tokens or shorten the prompt"
        )
    for want in request.want if isinstance(request.want, tuple) else (request.want,):
        error = _wanted(want, runner)
        if error is not None:
            return error
    return _tokens(request.nodes, runner, shape.vocab_size)


def _wanted(want: object, runner: ModelRunner) -> TreilleError | None:
    """Why a readout cannot be taken."""
    shape = runner.decoder.shape
    match want:
        case TopK(k) if k < 1:
            return ParameterError(f"{want}: k must be at least 1")
        case LogProbs(tokens) if any(not 0 <= token < shape.vocab_size for token in tokens):
            return ParameterError(f"{want}: token ids are 0 to {shape.vocab_size - 1}")
        case Hidden(layers) if any(not -1 <= layer <= shape.last_boundary for layer in layers):
            return ParameterError(
                f"{want}: layers are -1 (after the final norm) and the boundaries 0 to {shape.last_boundary}"
            )
        case Attention(layers) if any(not 0 <= layer < shape.layers for layer in layers) or not layers:
            return ParameterError(f"{want}: layers are 0 to {shape.layers - 1}, at least one")
        case Attention() if not isinstance(runner.decoder, Decoder):
            return ParameterError(f"{want}: a model run through transformers does not show its attention")
        case Argmax() | Sample() | TopK() | LogProbs() | Distribution() | Probabilities() | Hidden() | Attention():
            return None
        case _:  # what a strategy yields is checked here, whatever its annotations say
            return StrategyError(f"a Forward wants readouts such as Argmax() or TopK(5), not {want!r}")


def _tokens(nodes: Sequence[Node], runner: ModelRunner, size: int) -> TreilleError | None:
    """Why the nodes to be computed have no embedding."""
    for node in uncomputed(nodes, runner.name):
        if node.length - node.start == 1 and 0 <= node.token < size:
            continue
        tokens = node.tokens
        wrong = tokens[(tokens < 0) | (tokens >= size)]
        if wrong.size:
            return ParameterError(f"token id {wrong[0]} of {node}: model {runner.name!r} has ids 0 to {size - 1}")
    return None
