"""Runs a causal language model of `transformers` unchanged, with this package's key and value store and plans.

`transformers` lets a model's attention be replaced by name. The function put there writes the rows' keys and values to
the engine's slots and calls the engine's attention, so such a model shares prefixes, batches and branches like any
other. Rows of all requests are one sequence of a batch of one; positions are given; the library's own cache is unused.
"""

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from treille.attention.merged import attend as merged_attend
from treille.attention.plan import AttentionPlan, Block, Piece
from treille.errors import InternalError, ParameterError
from treille.models.decoder import ModelShape, check_boundaries
from treille.models.ops import Attend, KVStore

_NAME = "treille"
_PROBE_LENGTH, _PROBE_CHUNK = 8, 5
_PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 5e-2}


@dataclass(slots=True)
class _Forward:
    """What one forward of the model carries down to its attention layers.

    Attributes:
        attend: The attention function.
        kv: Where keys and values are stored; None in the first probe, when their shape is not known yet.
        plan: Of the forward; None likewise.
        calls: (layer, key heads, key dimension, value dimension) of each call so far.
    """

    attend: Attend
    kv: KVStore | None = None
    plan: AttentionPlan | None = None
    calls: list[tuple[int, int, int, int]] = field(default_factory=list)


class TransformersAdapter:
    """A model of `transformers` behind the interface of `treille.models.decoder.LanguageModel`.

    The constructor runs the model on a few tokens, with its own attention and with this one, and refuses it where the
    two disagree. From then on the model's attention works through this adapter only.

    Args:
        model: A causal language model whose layers use the library's attention interface.
        attend: The attention function.
        context_length: Longest sequence in tokens; None for the configuration's ``max_position_embeddings``.

    Raises:
        ParameterError: The model does not support this; the message says why.
    """

    def __init__(self, model: Any, attend: Attend = merged_attend, *, context_length: int | None = None) -> None:
        self.model = model.eval()
        self._attend = attend
        self._name = type(model).__name__
        self.config = model.config.get_text_config(decoder=True)
        self._refuse_by_config()
        expected = self._own_logits()
        self._head = _head_only(model, self._name)
        self._replace_attention()
        self.shape = self._probe_shape(self._context_length(context_length))
        self._compare(expected)

    def forward(self, tokens: Tensor, kv: KVStore, plan: AttentionPlan) -> Tensor:
        """[R, H]: hidden states after the final norm; writes the rows' keys and values to the plan's slots.

        Args:
            tokens: [R] int64.
            kv: The keys and values that the plan's slots point into.
            plan: Positions, slots and contexts of the rows.
        """
        return self.forward_hidden(tokens, kv, plan, ())[0]

    def forward_hidden(
        self, tokens: Tensor, kv: KVStore, plan: AttentionPlan, boundaries: Collection[int]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """`forward`, and the rows' hidden states [R, H] at layer boundaries.

        Args:
            tokens: [R] int64.
            kv: The keys and values that the plan's slots point into.
            plan: Positions, slots and contexts of the rows.
            boundaries: Within 0..L-1: b is the input of layer b; the library does not give out the last one.

        Raises:
            ParameterError: A boundary is outside 0..L-1.
        """
        check_boundaries(boundaries, self.shape.layers - 1)
        output = self._run(tokens, plan.positions, _Forward(self._attend, kv, plan), hidden=bool(boundaries))
        kept = {boundary: output.hidden_states[boundary][0] for boundary in boundaries}
        return output.last_hidden_state[0], kept

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, V] float32, scaled and capped as the model does.

        Args:
            hidden: [n, H] after the final norm.
        """
        # The body is out of the way, so the tokens given here are never looked at.
        tokens = torch.zeros(1, hidden.shape[0], dtype=torch.int64, device=hidden.device)
        with torch.no_grad():
            logits: Tensor = self._head(input_ids=tokens, treille_hidden=hidden.unsqueeze(0)).logits[0]
        return logits.float()

    def _run(self, tokens: Tensor, positions: Tensor, call: _Forward, *, hidden: bool = False) -> Any:
        """The output of the model's body."""
        body = getattr(self.model, self.model.base_model_prefix)
        with torch.no_grad():
            return body(
                input_ids=tokens.unsqueeze(0),
                position_ids=positions.unsqueeze(0),
                use_cache=False,
                output_hidden_states=hidden,
                return_dict=True,
                treille=call,
            )

    def _refuse_by_config(self) -> None:
        """Refuses what a short probe would not show."""
        if getattr(self.config, "attention_chunk_size", None) is not None:
            raise ParameterError(f"{self._name}: chunked attention (attention_chunk_size) is not supported")
        if getattr(self.config, "is_encoder_decoder", False):
            raise ParameterError(f"{self._name}: is an encoder-decoder; only decoders are supported")
        ropes = getattr(self.config, "rope_parameters", None) or {}
        for rope in (ropes, *(value for value in ropes.values() if isinstance(value, dict))):
            if rope.get("rope_type") in ("dynamic", "longrope"):
                raise ParameterError(
                    f"{self._name}: rope_type = {rope['rope_type']!r} rotates a token by the length of its batch; "
                    "not supported"
                )

    def _probe_tokens(self) -> Tensor:
        return (torch.arange(_PROBE_LENGTH) * 7919 + 1).remainder(self.config.vocab_size).to(self.model.device)

    def _own_logits(self) -> Tensor:
        """[T, V] float32 logits of the probe's tokens by the model's own attention."""
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=self._probe_tokens().unsqueeze(0), use_cache=False).logits[0]
        return logits.float()

    def _replace_attention(self) -> None:
        from transformers import AttentionInterface, AttentionMaskInterface

        # The same functions every time: what differs between adapters travels with each call.
        AttentionInterface.register(_NAME, _attention)
        AttentionMaskInterface.register(_NAME, _window)
        self.model.set_attn_implementation(_NAME)
        if self.config._attn_implementation != _NAME:  # noqa: SLF001  # there is no public name for it
            raise ParameterError(f"{self._name}: its attention cannot be replaced (no attention interface)")

    def _context_length(self, asked: int | None) -> int:
        known: int | None = getattr(self.config, "max_position_embeddings", None)
        length = known if asked is None else asked
        if length is None:
            raise ParameterError(f"{self._name}: the configuration has no max_position_embeddings; give context_length")
        if length < 1 or (known is not None and length > known):
            raise ParameterError(f"context_length = {length}: the model's positions end at {known}")
        return length

    def _probe_shape(self, context_length: int) -> ModelShape:
        """The shape, from what reaches the attention function in a forward of a few tokens."""
        call = _Forward(self._attend)
        tokens = self._probe_tokens()
        try:
            self._run(tokens, torch.arange(len(tokens), device=tokens.device), call)
        except ParameterError:
            raise
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ParameterError(f"{self._name}: does not run with replaced attention ({error})") from error
        layers = [layer for layer, *_ in call.calls]
        sizes = {seen[1:] for seen in call.calls}
        if layers != list(range(self.config.num_hidden_layers)) or len(sizes) != 1:
            raise ParameterError(
                f"{self._name}: attention must be reached once by each of {self.config.num_hidden_layers} layers, with "
                f"the same sizes; it was reached by layers {layers} with {sorted(sizes)}"
            )
        kv_heads, head_dim, value_dim = next(iter(sizes))
        if head_dim != value_dim:
            raise ParameterError(f"{self._name}: keys of {head_dim} and values of {value_dim} dimensions differ")
        return ModelShape(
            vocab_size=self.config.vocab_size,
            hidden=self.config.hidden_size,
            layers=len(layers),
            kv_heads=kv_heads,
            head_dim=head_dim,
            context_length=context_length,
            last_boundary=len(layers) - 1,
            dtype=self.model.dtype,
            device=self.model.device,
        )

    def _compare(self, expected: Tensor) -> None:
        """Returns only if a prefill and a chunk after it give the model's own logits."""
        tokens, store = self._probe_tokens(), _ProbeStore(self.shape, _PROBE_LENGTH)
        rows = []
        for start, stop in ((0, _PROBE_CHUNK), (_PROBE_CHUNK, _PROBE_LENGTH)):
            positions = torch.arange(start, stop, device=tokens.device)
            pieces = (Piece(0, start, 0, range(stop - start)),) if start else ()
            plan = AttentionPlan(positions, positions, pieces, (Block(0, stop - start, None),))
            rows.append(self.logits(self.forward(tokens[start:stop], store, plan)))
        error = float((torch.cat(rows) - expected).abs().max())
        if not error <= _PROBE_TOLERANCE[self.shape.dtype] * (1.0 + float(expected.abs().max())):
            raise ParameterError(
                f"{self._name}: its logits change by {error:.3g} when its attention is replaced, so it computes "
                "something beyond the attention interface; not supported"
            )


class _ProbeStore:
    """Keys and values for the probe."""

    def __init__(self, shape: ModelShape, slots: int) -> None:
        size = (shape.layers, 2, shape.kv_heads, slots, shape.head_dim)
        pool = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self.keys: Sequence[Tensor] = [layer[0] for layer in pool]
        self.values: Sequence[Tensor] = [layer[1] for layer in pool]


class _GivenHidden(nn.Module):
    """Stands in the place of a model's body and returns the hidden states that it is given."""

    def forward(self, *_: Any, treille_hidden: Tensor, **__: Any) -> Any:
        """The body's output, made of `treille_hidden` [1, n, H]."""
        from transformers.modeling_outputs import BaseModelOutputWithPast

        return BaseModelOutputWithPast(last_hidden_state=treille_hidden)


def _head_only(model: Any, name: str) -> Any:
    """The same model and weights with its body taken out: what is left is the way from hidden states to logits."""
    prefix = model.base_model_prefix
    if prefix not in model._modules:  # noqa: SLF001  # a shallow copy of a module has no public way
        raise ParameterError(f"{name}: has no body named {prefix!r}; only causal language models are supported")
    head = copy.copy(model)
    head._modules = {**model._modules, prefix: _GivenHidden()}  # noqa: SLF001
    return head


def _window(*_: Any, local_size: int | None = None, **__: Any) -> Tensor:
    """What the library hands to the attention layers as their mask: the sliding window, 0 for none."""
    return torch.tensor(local_size or 0)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    treille: _Forward | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """[1, R, Hq, D]: the attention function that the library calls, with tensors [1, heads, R, D]."""
    if treille is None:
        raise ParameterError(f"{type(module).__name__}: keyword arguments do not reach the attention; not supported")
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    treille.calls.append((layer, k.shape[1], k.shape[2], v.shape[2]))
    if treille.plan is None or treille.kv is None:
        return torch.zeros_like(q).unsqueeze(0), None
    window = sliding_window if attention_mask is None else int(attention_mask) or None
    if sliding_window is not None and window != sliding_window:
        raise InternalError(f"{type(module).__name__}: mask and argument disagree on the window of layer {layer}")
    keys, values = treille.kv.keys[layer], treille.kv.values[layer]
    keys.index_copy_(1, treille.plan.slots, k.transpose(0, 1))
    values.index_copy_(1, treille.plan.slots, v.transpose(0, 1))
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = treille.attend(q, k, v, keys, values, treille.plan, scale=scale, window=window, softcap=softcap)
    return out.unsqueeze(0), None
