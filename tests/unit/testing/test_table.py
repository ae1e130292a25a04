"""Tables of rationals as models."""

from fractions import Fraction

import pytest

from treille.errors import ParameterError
from treille.testing import Letters, TableModel


def test_a_mapping_by_full_path():
    """The law after a path is its row; a path without a row is refused by name."""
    model = TableModel(2, {(0,): ["1/3", "2/3"]})
    assert model.law([0]) == (Fraction(1, 3), Fraction(2, 3))
    with pytest.raises(ParameterError, match=r"\(0, 1\)"):
        model.law([0, 1])


@pytest.mark.parametrize("row", [["1/2", "1/3"], ["3/2", "-1/2"], ["1/2", "1/4", "1/4"]])
def test_a_row_that_is_no_distribution_is_refused(row):
    """Rows sum to one, are not negative and have V entries."""
    with pytest.raises(ParameterError, match="no distribution"):
        TableModel(2, {(0,): row}).law([0])


def test_markov_depends_on_the_last_tokens():
    """`markov` with rows looks at one token, with pairs as keys at two."""
    first = TableModel.markov([["0.5", "0.5"], ["0.25", "0.75"]])
    assert first.law([0, 0, 1]) == first.law([1]) == (Fraction(1, 4), Fraction(3, 4))
    second = TableModel.markov({(a, b): [Fraction(1 + a, 4), Fraction(3 - a, 4)] for a in (0, 1) for b in (0, 1)})
    assert second.law([0, 1, 0]) == (Fraction(1, 2), Fraction(1, 2))


def test_the_chain_of_the_verification_cards():
    """Three states, start state 0: the joint of two tokens is P[0, a] · P[a, b]."""
    rows = [["0.5", "0.3", "0.2"], ["0.2", "0.5", "0.3"], ["0.1", "0.3", "0.6"]]
    assert TableModel.markov(rows).probability((2, 1), prompt=(0,)) == Fraction("0.2") * Fraction("0.3")


@pytest.mark.parametrize("make", [TableModel.random, TableModel.hashed])
def test_seeded_tables_are_reproducible_and_differ_by_path_and_seed(make):
    """The law is a function of (seed, path)."""
    assert make(4, 7).law([0, 1]) == make(4, 7).law([0, 1])
    assert len({make(4, seed).law(path) for seed in (7, 8) for path in ([0], [1], [0, 1])}) == 6


def test_the_toy_model_has_121_texts():
    """40 texts that end themselves and 81 of full length, with probabilities that sum to one."""
    texts = TableModel.hashed(4, 0).texts(prompt=(0,), max_new_tokens=4, eos_token_ids=frozenset({3}))
    assert len(texts) == 121
    assert sum(3 in text for text in texts) == 40
    assert sum(texts.values()) == 1


def test_letters():
    """Token 0 is a; special tokens have no text."""
    assert Letters(frozenset({2})).decode([0, 2, 1]) == "ab"
