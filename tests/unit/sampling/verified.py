"""The exact law of what a piece of code does with randomness, and walks that verify drafts in wrong ways."""

from collections import defaultdict
from fractions import Fraction

import numpy as np

from treille.draft_tree import DraftTree
from treille.sampling.verify import residual, without
from treille.testing import TableModel, enumerate_outputs
from treille.tree import Node

NO_MODEL = TableModel(1, {})


def law_of(function):
    """Probabilities of `function(random)` as fractions, over all that `random` can give."""

    def strategy(run):
        yield from ()
        return function(run.random)

    return enumerate_outputs(strategy, NO_MODEL, key=lambda done: done.output)


def law(*values):
    """An array of exact probabilities, from decimals written as strings or numbers."""
    return np.array([Fraction(str(value)) for value in values], dtype=object)


def draw(random, weights, draw=0, purpose="draft"):
    """An index drawn with the given weights."""
    return random.categorical(tuple(weights), 1, purpose, draw)


def marginal(joint, place):
    """The law of one part of a tuple."""
    found = defaultdict(Fraction)
    for output, p in joint.items():
        found[output[place]] += p
    return dict(found)


def root():
    """An empty draft tree."""
    return DraftTree(Node.root([0]))


def draws_without_replacement(random, q, k):
    """The k tokens, each from what the earlier ones left of q."""
    tokens, left = [], q
    for i in range(k):
        tokens.append(draw(random, left, i))
        left = without(left, tokens[-1])
    return tokens


def walk_siblings(random, p, siblings):
    """(token, accepted) by rejection with free choice of the laws used.

    Siblings are (token, law for the ratio, law for the residual); in the right walk both are the law of the draw given
    the earlier siblings.
    """
    left = p
    for i, (token, ratio, subtracted) in enumerate(siblings):
        chance = min(Fraction(1), left[token] / ratio[token])
        if random.bernoulli(chance, 1, "accept", i):
            return token, True
        left = residual(left, subtracted, token)
    return draw(random, left, purpose="residual"), False
