"""Token healing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from treille.constraints import Vocabulary, choices, heal
from treille.constraints.healing import Beginning
from treille.errors import ParameterError

PIECES = (b"http", b":", b"://", b"//", b"a", b" ", b" the", b" there", b"\xc3", b"\xa9", b"\xc3\xa9!", b"!", b"/")
EOS, SPECIAL = len(PIECES), len(PIECES) + 1
VOCABULARY = Vocabulary((*PIECES, b"", b""), frozenset((EOS,)), 40, None, {EOS: "<|end|>", SPECIAL: "<|user|>"})
ID = {piece: token for token, piece in enumerate(PIECES)}


def allowed(constraint, state) -> set[int]:
    """The ids of a state's mask."""
    out = np.empty((1, VOCABULARY.words), np.int32)
    constraint.masks([state], out)
    return set(map(int, VOCABULARY.tokens_of(out[0])))


@pytest.mark.parametrize(
    ("prompt", "kept", "prefix"),
    [
        ([b"http", b":"], 1, ":"),  # "://" begins with ":"
        ([b"a", b" the"], 1, " the"),
        ([b"a", b"http"], 2, ""),  # no longer token begins with "http", "ttp", …
        ([b"a", b":", b"/"], 1, ":/"),  # the longest end counts, over two tokens
        ([b"a", b"\xc3", b"\xa9"], 1, "é"),  # cut at a character
        ([b"http"], 1, ""),  # the first token stays
    ],
)
def test_heal(prompt: list[bytes], kept: int, prefix: str) -> None:
    """The tokens that a longer token could replace go, and their text is required."""
    tokens = [ID[piece] for piece in prompt]
    healed = heal(tokens, VOCABULARY)
    assert healed == (tuple(tokens[:kept]), prefix)
    assert VOCABULARY.decode(healed.kept) + healed.prefix.encode() == VOCABULARY.decode(tokens)


def test_special_tokens_stay() -> None:
    """Nothing before a special token is healed, nor the token itself."""
    assert heal([ID[b":"], SPECIAL], VOCABULARY) == ((ID[b":"], SPECIAL), "")


def test_beginning_equals_brute_force() -> None:
    """Texts of three tokens that begin with the prefix are allowed token by token, others are not; then all is free."""
    prefix = b"://a"
    constraint = Beginning(prefix.decode()).compile(VOCABULARY)
    for chain in itertools.product(range(len(PIECES)), repeat=3):
        state, text = constraint.start(), b""
        for token in chain:
            text += PIECES[token]
            tokens = allowed(constraint, state)
            state = constraint.advance(state, token)
            fits = prefix.startswith(text) or text.startswith(prefix)
            assert (state is not None) == (token in tokens) == fits
            if state is None:
                break
            assert constraint.is_final(state) == (len(text) >= len(prefix)) == (EOS in allowed(constraint, state))
    free = constraint.advance(constraint.advance(constraint.start(), ID[b"://"]), ID[b"a"])
    assert allowed(constraint, free) == set(range(len(PIECES) + 2))
    assert constraint.forced(constraint.start()) == ()
    assert constraint.closing(constraint.start()) == (ID[b"://"], ID[b"a"])


def test_beginning_has_one_tokenization() -> None:
    """Healing with canonical tokenization contradicts itself."""
    with pytest.raises(ParameterError, match="may be spelled in any way"):
        Beginning(":").compile(VOCABULARY, "canonical")


def test_a_constraint_heals_with_the_prompt() -> None:
    """A source takes a prefix over: its texts then begin with it, in any spelling, and parse without it."""
    source = choices(["//a", "a"]).prefixed(":")
    constraint = source.compile(VOCABULARY)
    assert allowed(constraint, constraint.start()) == {ID[b":"], ID[b"://"]}
    assert source.parse("://a") == "//a"
