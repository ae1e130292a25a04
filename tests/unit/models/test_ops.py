"""The decoder's interface, and the details of its operations that the comparison with `transformers` does not show."""

from collections.abc import Callable

import pytest
import torch
from model_checkpoints import Checkpoint, Store, chunk_plan, random_tokens

from treille.attention.plan import AttentionPlan, Block, Piece
from treille.errors import ParameterError
from treille.models.loader import load_checkpoint
from treille.models.ops import Norm, normalize
from treille.models.rope import rotary, rotate

Save = Callable[..., Checkpoint]


def test_boundaries_are_those_of_transformers(save: Save) -> None:
    """Hidden states before each layer and after the final norm are those of `transformers`; L is before the norm."""
    saved = save()
    model = load_checkpoint(saved.directory).decoder
    tokens = random_tokens(11)
    final, kept = model.forward_hidden(tokens, Store(model, 11), chunk_plan(0, 11), (0, 1, 2, 3))
    with torch.no_grad():
        expected = saved.model(tokens.unsqueeze(0), output_hidden_states=True).hidden_states
    for boundary in range(3):
        assert torch.allclose(kept[boundary], expected[boundary][0], atol=1e-5)
    assert torch.allclose(final, expected[3][0], atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(saved.model.model.norm(kept[3]), final, atol=1e-5)
    with pytest.raises(ParameterError, match=r"boundary 4.*0\.\.3"):
        model.forward_hidden(tokens, Store(model, 11), chunk_plan(0, 11), (4,))


def test_branches_see_their_ancestors_only(save: Save) -> None:
    """Two branches of one prefix, in one forward with another request, have the logits they have alone."""
    saved = save("MistralConfig", "MistralForCausalLM", num_key_value_heads=2, sliding_window=6)
    model = load_checkpoint(saved.directory).decoder
    prefix, left, right, other = (random_tokens(count, seed) for seed, count in enumerate((9, 2, 1, 4)))
    store = Store(model, 64)
    model.forward(prefix, store, chunk_plan(0, 9, offset=20))
    plan = AttentionPlan(
        positions=torch.tensor([9, 9, 10, 0, 1, 2, 3]),
        slots=torch.tensor([3, 40, 11, 50, 51, 52, 53]),
        pieces=(Piece(20, 29, 0, (0, 1, 2)),),
        blocks=(Block(0, 3, (-1, -1, 0)), Block(3, 7, None)),
    )
    tokens = torch.cat([left[:1], right, left[1:], other])
    logits = model.logits(model.forward(tokens, store, plan))
    alone = saved.reference(torch.cat([prefix, left]))[-2:]
    assert torch.allclose(logits[[0, 2]], alone, atol=1e-4)
    assert torch.allclose(logits[1], saved.reference(torch.cat([prefix, right]))[-1], atol=1e-4)
    assert torch.allclose(logits[3:], saved.reference(other), atol=1e-4)


def test_norms_are_computed_in_float32() -> None:
    """A norm of bfloat16 rows is the float32 norm, rounded once."""
    x = torch.randn(3, 16, dtype=torch.bfloat16) * 50
    weight, bias = torch.randn(16), torch.randn(16)
    layer = normalize(x, Norm("layer", weight, bias, 1e-5))
    assert torch.equal(layer, torch.nn.functional.layer_norm(x.float(), (16,), weight, bias, 1e-5).bfloat16())
    rms = normalize(x, Norm("rms", weight, None, 1e-6, offset=1.0))
    expected = torch.nn.functional.rms_norm(x.float(), (16,), weight + 1, 1e-6).bfloat16()
    assert torch.allclose(rms.float(), expected.float(), rtol=1e-2)


def test_rotation_keeps_norms_and_depends_on_distance_only() -> None:
    """Rotated dimensions keep their length, the others their values, and scores depend on the distance alone."""
    frequencies = torch.tensor([1.0, 0.1, 0.01])
    x, y = torch.randn(1, 2, 10), torch.randn(1, 2, 10)

    def at(z: torch.Tensor, position: int) -> torch.Tensor:
        return rotate(z, rotary(frequencies, 1.0, torch.tensor([position])))

    assert torch.equal(at(x, 7)[..., 6:], x[..., 6:])
    assert torch.allclose(at(x, 7).norm(dim=-1), x.norm(dim=-1))
    assert torch.allclose((at(x, 7) * at(y, 3)).sum(-1), (at(x, 104) * at(y, 100)).sum(-1), atol=1e-4)
