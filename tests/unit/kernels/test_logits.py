"""Rows of logits: the kernels give what torch gives, for every width, tie and mask."""

import numpy as np
import pytest
import torch

from treille.kernels.logits import forbid, summarise

WIDTHS = (1, 2, 31, 32, 33, 255, 256, 257, 4096, 5003)


def summary(logits: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """The best token of each row, and log Σ exp."""
    best, norms = torch.full((len(logits),), -1), torch.zeros(len(logits))
    summarise(logits.numpy(), best.numpy(), norms.numpy())
    return best.tolist(), norms


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [0.01, 3.0, 300.0])
def test_the_summary_equals_torchs(width: int, scale: float) -> None:
    """Within the rounding of float32, also where most tokens are forbidden or far less probable than the best."""
    logits = torch.randn(5, width, generator=torch.Generator().manual_seed(width)) * scale + 7
    logits[3, torch.arange(width) % 7 != 0] = -torch.inf
    logits[4, 1:] = -torch.inf
    best, norms = summary(logits)
    assert best == logits.argmax(-1).tolist()
    expected = torch.logsumexp(logits.double(), -1)
    torch.testing.assert_close(norms.double(), expected, rtol=2e-7, atol=2e-6)


def test_the_lowest_of_equal_tokens_is_best() -> None:
    """Wherever they stand; and a row without a token has no norm."""
    logits = torch.zeros(3, 600)
    logits[0, [300, 17, 599]] = 2.0
    logits[2] = -torch.inf
    best, norms = summary(logits)
    assert best == [17, 0, 0]
    assert norms[:2].isfinite().all()
    assert norms[2].isnan()


@pytest.mark.parametrize("width", WIDTHS)
def test_masks_are_applied_bit_by_bit(width: int) -> None:
    """Each row has the mask of its index; words that allow all or nothing are no other than the rest."""
    rng = np.random.default_rng(width)
    words = rng.integers(-(2**31), 2**31, (4, -(-width // 32))).astype(np.int32)
    words[1], words[2] = -1, 0
    words[3, ::2] = 0
    rows = np.array([2, 0, 3, 1, 0])
    logits = rng.standard_normal((5, width)).astype(np.float32)
    found = logits.copy()
    forbid(found, words, rows)
    allowed = np.unpackbits(words.view(np.uint8), axis=1, count=width, bitorder="little").astype(bool)[rows]
    np.testing.assert_array_equal(found, np.where(allowed, logits, -np.inf))
