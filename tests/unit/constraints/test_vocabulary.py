"""Tokens as bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers

import treille
from treille.constraints import Vocabulary, regex
from treille.errors import ParameterError
from treille.models.tokenizer import Tokenizer, load_tokenizer

BUNDLED = Path(treille.__file__).parent / "models/bundled"
TEXTS = ("def read_file(path):\n", " é\u00a0€🙂", '{"a": 1}', "", "\n\n  x")


def sentencepiece() -> Tokenizer:
    """A tokenizer with a space marker, byte fallback, a prepended space, and an added token that is not special."""
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab"]
    merges = [("▁", "a"), ("a", "b")]
    backend = tokenizers.Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([tokenizers.AddedToken("</s>", special=True)])
    backend.add_tokens([tokenizers.AddedToken("<tool>", special=False, normalized=False)])
    return Tokenizer(backend, {"eos_token": "</s>"})


def test_byte_level_tokens_spell_texts() -> None:
    """The bytes of a byte-level tokenizer's tokens are the text, and `spell` is the tokenizer's own spelling."""
    tokenizer = load_tokenizer(BUNDLED)
    assert tokenizer is not None
    eos = tokenizer.token_id("eos_token")
    vocabulary = Vocabulary.of(tokenizer, [eos])
    for text in TEXTS:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        assert vocabulary.decode(tokens) == text.encode()
        assert vocabulary.spell(text.encode()) == tuple(tokens)
    assert vocabulary.tokens[eos] == b""
    assert vocabulary.special[eos] == tokenizer.special_tokens["eos_token"]


def test_sentencepiece_tokens_spell_texts() -> None:
    """A space marker is a space, byte tokens are bytes, added text is text, and no space is invented before a text."""
    tokenizer = sentencepiece()
    vocabulary = Vocabulary.of(tokenizer, [1], width=300)
    assert vocabulary.tokens[2 + 0xC3] == b"\xc3"
    assert vocabulary.ids[b" a"] == (261,)
    assert vocabulary.ids[b"<tool>"] == (263,)
    assert vocabulary.tokens[1] == b""
    for text in ("ab", " a", "a a", "é", "a\n"):
        assert vocabulary.decode(vocabulary.spell(text.encode())) == text.encode()
    assert vocabulary.spell(b"ab") == (262,)
    constraint = regex("ab? a").compile(vocabulary)
    assert constraint.accepted(constraint.start(), (*vocabulary.spell(b"ab a"), 1)) == 3


def test_spelling_of_parts_of_characters() -> None:
    """Bytes that are no whole text are spelled too; bytes that no token has are refused."""
    vocabulary = Vocabulary((b"\xc3", b"\xa9", b"\xc3\xa9", b"a", b""), frozenset((4,)), 5)
    assert vocabulary.spell(b"a\xc3\xa9\xc3") == (3, 2, 0)
    assert vocabulary.spell(b"\xa9a") == (1, 3)
    with pytest.raises(ParameterError, match="no token of the vocabulary begins like b'b'"):
        vocabulary.spell(b"ab")


def test_masks_and_ids() -> None:
    """`mask_of` and `tokens_of` are inverse; token t is bit t & 31 of word t >> 5."""
    vocabulary = Vocabulary((b"a",) * 60, frozenset((3,)), 70)
    mask = vocabulary.mask_of([0, 31, 32, 59])
    assert mask.dtype == np.int32
    assert mask.tolist() == [-(2**31) + 1, 1 | 1 << 27, 0]
    assert vocabulary.tokens_of(mask).tolist() == [0, 31, 32, 59]
    assert vocabulary.tokens_of(vocabulary.eos_mask).tolist() == [3]


def test_prefix_queries() -> None:
    """`starting_with` and `starts_some` equal a search of the table."""
    pieces = (b"a", b"ab", b"abc", b"b", b"\xff", b"\xff\xff", b"ab", b"")
    vocabulary = Vocabulary(pieces, frozenset((7,)), 8)
    for prefix in (b"", b"a", b"ab", b"abd", b"b", b"\xff", b"c"):
        expected = sorted({piece for piece in pieces if piece and piece.startswith(prefix)})
        assert list(vocabulary.starting_with(prefix)) == expected
        assert vocabulary.starts_some(prefix) == bool(expected)
    assert vocabulary.ids[b"ab"] == (1, 6)


@pytest.mark.parametrize(
    ("eos", "width", "message"),
    [((), 5, "no end-of-sequence token"), ((9,), 5, "eos_token_id=9: the logits have width 5"), ((1,), 1, "2 tokens")],
)
def test_refusals(eos: tuple[int, ...], width: int, message: str) -> None:
    """A vocabulary without an end, or wider than the logits, is refused."""
    with pytest.raises(ParameterError, match=message):
        Vocabulary((b"a", b""), frozenset(eos), width)
