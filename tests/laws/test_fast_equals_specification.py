"""The CPU kernels against plain torch operations and the reference attention, for every trait of the families."""

import pytest
import torch
from random_decoder import FAMILIES, LAYERS, forwards, random_decoder, run

from treille.attention import merged, reference
from treille.kernels.dispatch import most_rows
from treille.models.cpu_ops import CpuOps
from treille.models.cpu_stack import CpuStack, accelerate
from treille.models.ops import TorchOps

ROWS = [1, 2, 3, 5, 8, 9, 17, 32, 33, 40]
BOUNDARIES = (0, 1, LAYERS)

pytestmark = pytest.mark.skipif(most_rows(torch.float32) == 0, reason="the kernels do not cover this platform")


def builds(name, dtype=torch.float32):
    """The specification, one operation per call, and one call per range of layers, all of the same weights."""
    specification = random_decoder(name, reference.attend, dtype)
    operations = random_decoder(name, reference.attend, dtype)
    operations.ops = CpuOps(merged.attend, dtype)
    ranges = random_decoder(name, reference.attend, dtype)
    accelerate(ranges, merged.attend)
    return specification, operations, ranges


@pytest.mark.parametrize("name", FAMILIES)
def test_float32_logits_are_equal(name):
    """Within 1e-4 for any number of rows: logits, hidden states at layer boundaries, and stored keys and values."""
    specification, *fast = builds(name)
    for rows in ROWS:
        steps = list(forwards(rows, seed=rows))
        expected = run(specification, steps, BOUNDARIES)
        assert expected[0].isfinite().all()
        for build in fast:
            found = run(build, steps, BOUNDARIES)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_is_nearer_to_the_truth(name, dtype):
    """With 16-bit weights the kernels are no farther from float32 arithmetic on these weights than plain torch is.

    Both store keys and values in 16 bits; torch also rounds after every operation, the kernels do not. So the mean
    error of the kernels stays below torch's, and the largest below twice torch's largest. A chosen expert may differ
    where two are nearly equal, which no rounding bounds: mixtures are compared by their median error.
    """
    specification, *fast = builds(name, dtype)
    truth = random_decoder(name, reference.attend)
    _copy_weights(specification, truth)
    for rows in (1, 6, 40):
        steps = list(forwards(rows, seed=rows))
        exact = run(truth, steps)[0]
        plain = (run(specification, steps)[0] - exact).abs()
        for build in fast:
            error = (run(build, steps)[0] - exact).abs()
            if name == "experts":
                assert error.median() <= 1.2 * plain.median()
                continue
            assert error.mean() <= plain.mean()
            assert error.max() <= 2 * plain.max()


def _copy_weights(source, target):
    """Give `target` (float32) the values of `source`'s 16-bit weights."""
    for ours, theirs in zip(_tensors(source.weights), _tensors(target.weights), strict=True):
        theirs.copy_(ours.float())
    target._embedding_multiplier = source._embedding_multiplier


def _tensors(part):
    """All tensors of a nest of frozen dataclasses, in order."""
    if isinstance(part, torch.Tensor):
        yield part
    elif isinstance(part, tuple):
        for item in part:
            yield from _tensors(item)
    elif hasattr(part, "__dataclass_fields__"):
        for name in part.__dataclass_fields__:
            yield from _tensors(getattr(part, name))


@pytest.mark.parametrize("name", ["llama", "parallel, partly rotated", "two rotations"])
def test_a_row_does_not_depend_on_the_others(name):
    """Under the kernels a row's logits are the same to the bit, whatever else is computed beside it."""
    decoder = builds(name)[2]
    contexts = 38  # rows of the first forward; the next row is the first of the chain in the second one
    alone = run(decoder, forwards(1, seed=3))[0][: contexts + 1]
    for rows in (2, 9, 30):
        assert torch.equal(run(decoder, forwards(rows, seed=3))[0][: contexts + 1], alone)


def test_the_stack_covers_what_it_should():
    """One call per range of layers for all but experts and norms over all heads; torch for other dtypes."""
    covered = {name: builds(name)[2].stack is not None for name in FAMILIES}
    assert {name for name, fast in covered.items() if not fast} == {"experts", "qk norm of all heads"}
    double = random_decoder("llama", reference.attend, torch.float64)
    accelerate(double, merged.attend)
    assert double.stack is None
    assert isinstance(double.ops, TorchOps)
    assert isinstance(builds("llama")[2].stack, CpuStack)
