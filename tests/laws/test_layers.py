"""Decoders with layers left out, for every trait of the families."""

from dataclasses import replace

import pytest
import torch
from random_decoder import FAMILIES, LAYERS, SLOTS, forwards, random_decoder

from treille.attention import merged, reference
from treille.cache.slots import KVMemory
from treille.errors import ParameterError
from treille.kernels.dispatch import most_rows
from treille.models.cpu_stack import accelerate
from treille.requests import Layers

CHOICES = [
    Layers(2),
    Layers.without([1]),
    Layers(None, frozenset([1]), frozenset([0])),
    Layers(2, frozenset([0]), frozenset([0])),
]


def run(decoder, steps, layers):
    """Logits of all rows of all forwards, and the keys and values they left; slots start as NaN."""
    shape = decoder.shape
    memory = KVMemory(shape.layers, shape.kv_heads, shape.head_dim, SLOTS, shape.dtype, shape.device)
    memory.poison(0, SLOTS)
    rows = []
    with torch.inference_mode():
        for tokens, plan in steps:
            rows.append(decoder.logits(decoder.forward_hidden(tokens, memory, plan, (), layers)[0]))
    return torch.cat(rows), memory.data.float()


@pytest.mark.skipif(most_rows(torch.float32) == 0, reason="the kernels do not cover this platform")
@pytest.mark.parametrize("name", FAMILIES)
def test_one_call_is_the_loop_over_what_is_left(name):
    """Logits, keys and values within 1e-4; layers that are left out write nothing."""
    specification, fast = (random_decoder(name, attend) for attend in (reference.attend, merged.attend))
    accelerate(fast, merged.attend)
    steps = list(forwards(9, seed=1))
    for layers in CHOICES:
        expected = run(specification, steps, layers)
        torch.testing.assert_close(run(fast, steps, layers), expected, atol=1e-4, rtol=1e-4, equal_nan=True)
        idle = [i for i in range(LAYERS) if i in layers.skip_attention or i >= (layers.stop or LAYERS)]
        assert expected[1][idle].isnan().all()
        assert expected[0].isfinite().all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_layer_left_out_is_a_decoder_without_it(name):
    """The same logits as a decoder that never had these layers; with none left out, bitwise those of the decoder."""
    decoder, shorter = random_decoder(name, reference.attend), random_decoder(name, reference.attend)
    steps = list(forwards(5, seed=2))
    assert torch.equal(run(decoder, steps, Layers())[0], run(decoder, steps, Layers(LAYERS))[0])
    for layers, kept in ((Layers(2), (0, 1)), (Layers.without([1]), (0, 2))):
        weights = random_decoder(name, reference.attend).weights
        shorter.weights = replace(weights, layers=tuple(weights.layers[i] for i in kept))
        expected = run(shorter, steps, Layers())[0]
        torch.testing.assert_close(run(decoder, steps, layers)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_boundary_beyond_the_exit_is_refused():
    """There are no hidden states where no layer ran."""
    decoder = random_decoder("llama", reference.attend)
    ((tokens, plan), *_) = forwards(1)
    with pytest.raises(ParameterError, match=r"0\.\.2"):
        decoder.forward_hidden(tokens, None, plan, (3,), Layers(2))
