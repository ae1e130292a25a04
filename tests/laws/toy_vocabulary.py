"""The vocabulary of card "token masks": 256 bytes, merges, duplicates, tokens that end inside a character, two ends."""

from __future__ import annotations

import numpy as np

from treille.constraints import Vocabulary

MERGES = (
    b"ab", b"ba", b"aa", b"bb", b"aab", b"abb", b"abab", b"((", b"))", b"()", b")(", b'"a', b'a"', b'","', b'{"', b'":',
    b'"}', b'"a":', b'a":"', b"\\n", b'\\"', b"\xc3\xa9", b"a\xc3", b"\xa9b", b"\xc3\xa9\xc3", b"true", b"tr", b"ue",
    b"null", b"10", b"00", b"1,", b",1", b"[1", b"1]", b"12", b"<t", b">o", b"t>ok", b"ab", b"()",
)  # fmt: skip
TOKENS = (*(bytes([byte]) for byte in range(256)), *MERGES)
EOS, OTHER_EOS, SPECIAL = len(TOKENS), len(TOKENS) + 1, len(TOKENS) + 2
WIDTH = 333  # more than there are tokens, and no multiple of 32


def toy_vocabulary() -> Vocabulary:
    """300 tokens in logits of width 333; `ab` and `()` twice."""
    names = {EOS: "<|end|>", OTHER_EOS: "<|stop|>", SPECIAL: "<|tool|>"}
    return Vocabulary((*TOKENS, b"", b"", b""), frozenset((EOS, OTHER_EOS)), WIDTH, None, names)


def allowed(constraint, state) -> set[int]:
    """The ids of a state's mask."""
    out = np.full((1, constraint.vocabulary.words), -1, np.int32)
    constraint.masks([state], out)
    return set(map(int, constraint.vocabulary.tokens_of(out[0])))
