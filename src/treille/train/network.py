"""The network that is trained: Llama, with parameters under their Hugging Face names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from treille.train.recipe import Shape

EPSILON = 1e-5
THETA = 10_000.0


def rotary(length: int, head_dim: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the positions ``0 … length - 1``, each ``[length, head_dim]``, float32."""
    frequencies = THETA ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """``x`` (``[..., T, D]``) with each pair ``(i, i + D/2)`` turned by its position's angle."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


class Norm(nn.Module):
    """Root mean square norm with a weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` (``[..., H]``) of root mean square one, times the weight."""
        return F.rms_norm(x, self.weight.shape, self.weight, EPSILON)


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attention of every position of ``x`` (``[B, T, H]``) to those that the additive ``mask`` admits."""
        batch, length, _ = x.shape
        shape, width = self.shape, self.shape.head_dim
        # One product instead of three: the concatenation costs far less than two more passes over x.
        stacked = F.linear(x, torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight]))
        heads = stacked.view(batch, length, -1, width).transpose(1, 2)
        q, k, v = torch.split(heads, [shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        group = shape.heads // shape.kv_heads
        k, v = rotated(k, cos, sin).repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        mixed = F.scaled_dot_product_attention(rotated(q, cos, sin), k, v, attn_mask=mask.to(v.dtype))
        out: torch.Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return out


class MLP(nn.Module):
    """Gated feed-forward part."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``down(silu(gate(x)) * up(x))``, ``[..., H]``."""
        gate, up = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight])).chunk(2, -1)
        out: torch.Tensor = self.down_proj(F.silu(gate) * up)
        return out


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden)
        self.mlp = MLP(shape)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The residual stream (``[B, T, H]``) after this layer."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        out: torch.Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Stack(nn.Module):
    """Embedding, layers and final norm; the part that Hugging Face calls ``model``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.hidden)


class Llama(nn.Module):
    """A Llama with tied embeddings; its ``state_dict`` has the names and shapes of ``LlamaForCausalLM``."""

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__()
        self.shape = shape
        self.model = Stack(shape)
        self._draw(seed)

    def _draw(self, seed: int) -> None:
        """Normal weights of deviation 0.02; what adds to the residual stream is smaller the deeper the network."""
        random = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                deviation = 0.02 / (2 * self.shape.layers) ** 0.5 if deep else 0.02
                nn.init.normal_(parameter, std=deviation, generator=random)

    def hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """Normed states at each exit, ``[B, T, H]``, of ids ``[B, T]`` under the additive mask ``[B, 1, T, T]``."""
        cos, sin = rotary(ids.shape[1], self.shape.head_dim, ids.device)
        x, outputs = self.model.embed_tokens(ids), []
        for depth, layer in enumerate(self.model.layers, start=1):
            x = layer(x, cos, sin, mask)
            if depth in self.shape.exits:
                outputs.append(self.model.norm(x))
        return outputs

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``[..., V]`` of normed hidden states ``[..., H]``."""
        return F.linear(hidden, self.model.embed_tokens.weight)


def causal_mask(segments: torch.Tensor) -> torch.Tensor:
    """Additive float32 mask ``[B, 1, T, T]``: a token sees the tokens of its own document (``[B, T]``) up to itself."""
    length = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    seen = same & torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    # A large finite number: -inf would make NaN of 0 * -inf in the backward pass of some kernels.
    return torch.zeros(seen.shape, device=segments.device).masked_fill(~seen, -1e30)[:, None]
