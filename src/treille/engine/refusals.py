"""Why a forward cannot be computed: found before it joins a batch, so that it can never hurt the others in it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from treille.engine.variant import uncomputed, variant_of
from treille.errors import CapacityError, ParameterError, StrategyError, TreilleError
from treille.models.decoder import Decoder
from treille.requests import (
    Argmax,
    Attention,
    Distribution,
    Exits,
    Hidden,
    LogProbs,
    Probabilities,
    Sample,
    TopK,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from treille.engine.runner import ModelRunner
    from treille.requests import Forward, Layers


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
    error = _cheaper(request, runner)
    for want in request.want if isinstance(request.want, tuple) else (request.want,):
        error = error or _wanted(want, runner) or _reached(want, request)
    return error or _tokens(request, runner, shape.vocab_size)


def _cheaper(request: Forward, runner: ModelRunner) -> TreilleError | None:
    """Why a model cannot be run with these layers or this view."""
    layers, view, since = request.layers, request.view, request.since
    if layers is None and view is None:
        return (
            StrategyError(f"since={since} says from where layers or a view hold; give one of them") if since else None
        )
    shortest = min(node.length for node in request.nodes)
    if not 0 <= since < shortest:
        return ParameterError(f"since={since}: nodes that are read end beyond it (at {shortest}) and it is at least 0")
    if view is not None:
        edges = [edge for span in view.spans for edge in span] + [view.start]
        if edges[0] < 0 or any(a > b for a, b in itertools.pairwise(edges)) or view.start > since:
            return ParameterError(
                f"{view}: its spans ascend, end before its start, and it starts at since={since} at most"
            )
    return None if layers is None else _skipped(layers, runner)


def _skipped(layers: Layers, runner: ModelRunner) -> TreilleError | None:
    shape = runner.decoder.shape
    if not shape.layer_access:
        return ParameterError(
            f"{layers}: model {runner.name!r} is run through transformers, which gives no access to single layers; "
            "load it from a checkpoint directory of a supported family"
        )
    if layers.stop is not None and not 1 <= layers.stop <= shape.layers:
        return ParameterError(f"{layers}: model {runner.name!r} can stop after 1 to {shape.layers} layers")
    if any(not 0 <= layer < shape.layers for layer in layers.skip_attention | layers.skip_mlp):
        return ParameterError(f"{layers}: the layers of model {runner.name!r} are 0 to {shape.layers - 1}")
    return None


def _reached(want: object, request: Forward) -> TreilleError | None:
    """Why a readout cannot be taken of a cheaper variant of the model."""
    layers = request.layers
    if isinstance(want, Attention) and (request.view is not None or layers is not None):
        return ParameterError(f"{want}: attention is read of the whole model; leave out layers and view")
    if isinstance(want, Hidden | Exits) and layers is not None and layers.stop is not None:
        beyond = [layer for layer in want.layers if layer > layers.stop]
        return ParameterError(f"{want}: this forward stops after {layers.stop} layers") if beyond else None
    return None


def _wanted(want: object, runner: ModelRunner) -> TreilleError | None:
    """Why a readout cannot be taken."""
    shape = runner.decoder.shape
    match want:
        case Argmax() | Sample() | Distribution() | Probabilities():
            return None
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
        case Exits() if not runner.decoder.shape.layer_access:
            return ParameterError(f"{want}: model {runner.name!r} gives no access to single layers")
        case Exits(layers) if any(not 1 <= layer <= shape.layers for layer in layers) or not layers:
            return ParameterError(f"{want}: layers are 1 to {shape.layers}, at least one")
        case TopK() | LogProbs() | Hidden() | Attention() | Exits():
            return None
        case _:  # what a strategy yields is checked here, whatever its annotations say
            return StrategyError(f"a Forward wants readouts such as Argmax() or TopK(5), not {want!r}")


def _tokens(request: Forward, runner: ModelRunner, size: int) -> TreilleError | None:
    """Why the nodes to be computed have no embedding."""
    for node in uncomputed(request.nodes, variant_of(request, runner.decoder.shape.layers)):
        if node.length - node.start == 1 and 0 <= node.token < size:
            continue
        tokens = node.tokens
        wrong = tokens[(tokens < 0) | (tokens >= size)]
        if wrong.size:
            return ParameterError(f"token id {wrong[0]} of {node}: model {runner.name!r} has ids 0 to {size - 1}")
    return None
