"""DRY: matches, breakers, penalties."""

import math

import numpy as np
import pytest
import straight_line
import torch

from treille.sampling import dry
from treille.sampling.dry import Breakers, Dry, suffix_matches, z_function
from treille.sampling.path import Path
from treille.sampling.presets import build_chain


def letters(text):
    """Token ids of letters, a = 0."""
    return np.array([ord(c) - ord("a") for c in text], dtype=np.int32)


def test_worked_example():
    """Counts of abccbcyabc are [0,0,3,1,0,2,0,0,0]; with 2 allowed, c has 3 and y has 2."""
    window = letters("abccbcyabc")
    assert suffix_matches(window, 10).tolist() == [0, 0, 3, 1, 0, 2, 0, 0, 0]
    result = Dry(0.8)([Path(window, 0)], torch.zeros(1, 26))[0]
    wanted = torch.zeros(26)
    wanted[2], wanted[24] = -0.8 * 1.75, -0.8
    assert torch.allclose(result, wanted)


@pytest.mark.parametrize("z", [z_function, dry._compiled()])
def test_z_function_by_definition(z):
    """Plain and compiled: the common prefix with every suffix, by comparing letter by letter (300 random words)."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = rng.integers(0, 2, rng.integers(1, 25)).astype(np.int32)
        n = len(text)
        wanted = [0] + [next((m for m in range(n - k) if text[m] != text[k + m]), n - k) for k in range(1, n)]
        assert z(text).tolist() == wanted


def test_equals_brute_force():
    """500 random texts over 3 letters with random breakers, lengths and windows: the penalties of the definition."""
    rng = np.random.default_rng(1)
    for _ in range(500):
        tokens = rng.integers(0, 3, rng.integers(1, 40)).astype(np.int32)
        breakers = [tuple(rng.integers(0, 4, rng.integers(1, 4)).tolist()) for _ in range(rng.integers(0, 3))]
        allowed, last_n = int(rng.integers(0, 4)), int(rng.integers(1, 50))
        chain = build_chain(
            {"dry_multiplier": 0.5, "dry_base": 1.5, "dry_allowed_length": allowed, "dry_penalty_last_n": last_n,
             "dry_sequence_breakers": breakers}
        )  # fmt: skip
        result = chain([Path(tokens, 0)], torch.zeros(1, 5))[0]
        matches = straight_line.dry(tokens[-last_n:].tolist(), allowed, breakers)
        wanted = [-0.5 * 1.5 ** (matches[i] - allowed) if i in matches else 0.0 for i in range(5)]
        assert result.tolist() == pytest.approx(wanted)


def test_exponent_is_clamped():
    """A loop of 1,000 tokens costs the largest power of the base that float32 holds, not infinity."""
    result = Dry(1.0, 2.0)([Path(np.zeros(1000, np.int32), 0)], torch.zeros(1, 2))
    assert result[0].tolist() == [-(2.0**127), 0.0]
    flat = Dry(1.0, 1.0)([Path(np.zeros(1000, np.int32), 0)], torch.zeros(1, 2))
    assert flat[0].tolist() == [-1.0, 0.0]


class Words:
    """A vocabulary of given pieces; ``encode`` takes the longest piece first."""

    def __init__(self, *pieces):
        self.pieces = pieces
        self.vocabulary_size = len(pieces)

    def decode(self, ids):
        """The text of ids."""
        return "".join(self.pieces[i] for i in ids)

    def encode(self, text):
        """The ids of a text."""
        ids = []
        while text:
            piece = max((p for p in self.pieces if text.startswith(p)), key=len)
            ids.append(self.pieces.index(piece))
            text = text[len(piece) :]
        return ids


def test_breakers_from_text():
    """Tokens that hold the breaker break alone; tokens that end with its beginning break when its rest follows."""
    vocabulary = Words("a", "x", "y", "ax", "xy", "axyb", "xx")
    assert set(Breakers.sequences_of(["xy"], vocabulary)) == {(1, 2), (3, 2), (4,), (5,), (6, 2)}
    breakers = Breakers(Breakers.sequences_of(["xy"], vocabulary))
    limits = {(0, 0): 2, (0, 3, 2, 0): 1, (4, 0, 0, 0): 3, (0, 1, 0, 2): 4, (0, 6): 2, (1, 2): 0}
    for tokens, limit in limits.items():
        assert breakers.limit(np.array(tokens, np.int32)) == limit


def test_chain_from_a_tokenizer():
    """The default breakers go through the tokenizer: after a newline nothing is penalised yet."""
    vocabulary = Words("a", "b", "\n", ":", '"', "*", "c")
    chain = build_chain({"dry_multiplier": 1.0}, tokenizer=vocabulary)
    for text, hit in (("abcab", True), ("abc\nab", True), ("abcab\n", False), ("abca\nb", False)):
        tokens = np.array(vocabulary.encode(text), np.int32)
        result = chain([Path(tokens, 0)], torch.zeros(1, 7))
        assert (result[0, 6].item() < 0) == hit, text
        assert math.isfinite(result.min().item())


def test_breakers_are_never_penalised():
    """A token that is a breaker by itself keeps its logit even when it would continue a repetition."""
    tokens = letters("abcab")
    assert Dry(1.0, breakers=Breakers([(2,)]))([Path(tokens, 0)], torch.zeros(1, 4))[0].tolist() == [0.0] * 4
    assert Dry(1.0)([Path(tokens, 0)], torch.zeros(1, 4))[0].tolist() == [0.0, 0.0, -1.0, 0.0]
