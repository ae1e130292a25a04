"""VocabTrim; its law is in tests/laws."""

from fractions import Fraction

import numpy as np
import pytest
from draft_tables import DRAFT, acceptance, long_text, proposed

from treille.drafters._vocabulary import REFRESH, Trim
from treille.drafters.base import Host
from treille.drafters.vocab_trim import most_used
from treille.errors import ParameterError
from treille.testing.alone import _TableShape

SHAPE = _TableShape(6)


def host(**given):
    """A host with six tokens."""
    return Host(SHAPE, lambda name: SHAPE, **given)


def test_the_reported_law_is_the_trimmed_one():
    """Drawn tokens carry q without the other tokens, renormalised; none of the others is ever drafted."""
    tree, _ = proposed("vocab_trim:k=6,keep=[0,2]", do_sample=True, verification="rejection")
    for index in range(6):
        (trial,) = tree.trials[index]
        whole = DRAFT.law(tree.nodes[index].path.tolist())
        left = whole[0] + whole[2]
        assert tuple(trial.law.q) == (whole[0] / left, 0, whole[2] / left)
        assert trial.token != 1


def test_acceptance_with_a_part_of_the_vocabulary():
    """Golden laws, the two most probable tokens of q kept: sum of min(p, q') = .3; all kept: .6."""
    assert acceptance("vocab_trim:k=1,keep=[2,3]") == Fraction(3, 10)
    assert acceptance("vocab_trim:k=1,keep=4") == Fraction(3, 5)


def test_what_is_kept_is_learned_from_the_text():
    """After a while the K tokens in use most are kept, and what ends the text."""
    memory = {}
    trim = Trim(host(memory=memory, eos_token_ids=frozenset({0})), 2)
    uniform = np.full(6, 1 / 6)
    assert np.flatnonzero(trim(uniform)).tolist() == [0, 1]
    trim.learn(np.array([4] * REFRESH + [3] * 5))
    assert np.flatnonzero(trim(uniform)).tolist() == [0, 3, 4]
    assert np.flatnonzero(Trim(host(memory=memory), 2)(uniform)).tolist() == [3, 4]


def test_other_texts_do_not_shape_a_text_that_is_verified_by_rejection():
    """Alone, only the text's own tokens count."""
    memory = {}
    Trim(host(memory=memory), 2).learn(np.array([4, 5] * REFRESH))
    trim = Trim(host(memory=memory), 2)
    trim.learn(np.array([3]))
    trim.alone()
    assert np.flatnonzero(trim(np.full(6, 1 / 6))).tolist() == [0, 3]


def test_nothing_in_common_drafts_nothing():
    """Where the draft gives the kept tokens no probability, the step is plain."""
    assert not Trim(host(), [5])(np.array([0.5, 0.5, 0, 0, 0, 0])).any()


def test_a_smaller_part_is_accepted_less():
    """Acceptance falls with K, and the text goes on."""
    rates = []
    for keep in (3, 2, 1):
        drafts = long_text(f"vocab_trim:k=1,keep={keep}", verification="rejection", tokens=400)
        rates.append(drafts.kept[0] / drafts.tried[0])
    assert rates == sorted(rates, reverse=True)


def test_the_most_used_tokens():
    """By count, the lowest id first among equals, with what is always kept."""
    assert most_used([[5, 5, 2], [2, 2, 1, 7]], 3) == [1, 2, 5]
    assert most_used([[5, 5, 2]], 2, always=[9]) == [5, 9]
    assert most_used([], 2) == []


@pytest.mark.parametrize("keep", ["0", "4", "[]", "[3]", "[-1]", "common", "true"])
def test_refusals(keep):
    """A part of the vocabulary is a number of tokens or a list of ids."""
    with pytest.raises(ParameterError, match="keep="):
        proposed(f"vocab_trim:keep={keep}")
