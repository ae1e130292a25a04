"""The trained network is Hugging Face's Llama, document by document."""

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from treille.train.corpus import Batch
from treille.train.export import config
from treille.train.network import Llama, causal_mask
from treille.train.optimizers import make_optimizers, orthogonalised
from treille.train.recipe import Shape
from treille.train.trainer import backward

SHAPE = Shape(layers=3, hidden=32, heads=4, kv_heads=2, intermediate=40, context=64, vocabulary=96, exits=(2, 3))


@pytest.fixture(scope="module")
def network():
    """A network whose weights are large enough to matter."""
    made = Llama(SHAPE, seed=0)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.1)
    return made


@pytest.fixture(scope="module")
def reference(network):
    """The same weights in `transformers`."""
    model = LlamaForCausalLM(LlamaForCausalLM.config_class(**config(SHAPE))).float().eval()
    model.load_state_dict({**network.state_dict(), "lm_head.weight": network.model.embed_tokens.weight})
    return model


@torch.no_grad()
def test_logits_equal_transformers(network, reference):
    """Two documents in one row have the logits that `transformers` gives each of them alone."""
    ids = torch.randint(0, 96, (2, 50), generator=torch.Generator().manual_seed(2))
    segments = (torch.arange(50) >= 20).long().expand(2, 50)
    logits = network.logits(network.hidden(ids, causal_mask(segments))[-1])
    assert torch.allclose(logits[:, :20], reference(ids[:, :20]).logits, atol=1e-5)
    assert torch.allclose(logits[:, 20:], reference(ids[:, 20:]).logits, atol=1e-5)


@torch.no_grad()
def test_an_exit_is_a_shorter_network(network):
    """The exit after two layers is the network of its first two layers."""
    ids = torch.randint(0, 96, (1, 20), generator=torch.Generator().manual_seed(3))
    mask = causal_mask(torch.zeros(1, 20))
    short = Llama(Shape(2, 32, 4, 2, 40, 64, 96), seed=0)
    short.load_state_dict({n: t for n, t in network.state_dict().items() if ".layers.2." not in n})
    assert torch.equal(network.hidden(ids, mask)[0], short.hidden(ids, mask)[0])


def test_gradients_in_chunks_equal_those_of_the_plain_loss(network):
    """Loss and gradients are those of the mean over exits of the mean cross-entropy of the counted positions."""
    random = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 96, (2, 41), generator=random)
    counted = torch.rand(2, 40, generator=random) < 0.6
    batch = Batch(ids[:, :-1], ids[:, 1:], torch.zeros(2, 40, dtype=torch.long), counted)
    network.zero_grad()
    loss = backward(network, batch, torch.float32)
    found = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    outputs = network.hidden(batch.ids, causal_mask(batch.segments))
    plain = sum(F.cross_entropy(network.logits(x)[counted], batch.targets[counted]) for x in outputs) / 2
    plain.backward()
    assert loss == pytest.approx(plain.item(), rel=1e-5)
    for name, parameter in network.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-6), name


def test_weights_are_a_function_of_the_seed():
    """Equal seeds give equal weights."""
    a, b, c = (Llama(SHAPE, seed).model.layers[0].mlp.up_proj.weight for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("shape", [(3, 24, 64), (2, 64, 24)])
def test_directions_are_nearly_orthogonal(shape):
    """All singular values of a random matrix's direction lie between 0.7 and 1.2."""
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    assert values.min() > 0.7
    assert values.max() < 1.2


def test_every_parameter_has_one_optimizer(network):
    """Matrices of the layers go to the first optimizer, all else to the second, each once."""
    groups = [
        {id(p) for g in optimizer.param_groups for p in g["params"]} for optimizer in make_optimizers(network, 1, 1)
    ]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {id(p) for p in network.parameters()}
