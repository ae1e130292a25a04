"""Verification rules: the golden vectors as fractions, any tree has the target's law, guards."""

import random as standard_random
from fractions import Fraction

import numpy as np
import pytest
from verified import draw, draws_without_replacement, law, law_of, marginal, root, walk_siblings

from treille.draft_tree import Law
from treille.sampling.random import Random
from treille.sampling.verify import chance, match, reject, residual, without
from treille.testing import TableModel

P, Q = law(0.4, 0.3, 0.2, 0.1), law(0.1, 0.2, 0.3, 0.4)
P3, Q3 = law(0.5, 0.3, 0.2), law(0.2, 0.5, 0.3)


def as_dict(p):
    """A law as `law_of` returns it, without tokens of probability zero."""
    return {token: value for token, value in enumerate(p) if value}


def first_token(tree, walk):
    """(the first token that a walk emits, whether it was drafted)."""
    accepted = bool(walk.accepted)
    return (tree.nodes[walk.accepted[0]].token if accepted else walk.token), accepted


def rejected(random, p, siblings):
    """(first token, accepted) of `reject` for siblings (token, law) under the root."""
    tree = root()
    for token, of in siblings:
        tree.add(0, token, of)
    return first_token(tree, reject(tree, [p] * len(tree.nodes), random))


def matched(random, p, tokens):
    """(first token, accepted) of `match` for the given children of the root and one draw of the target."""
    tree = root()
    for token in tokens:
        tree.add(0, token)
    pick = draw(random, p, purpose="sample")
    return first_token(tree, match(tree, [pick] * len(tree.nodes)))


def one_draw(random):
    """Rule V3."""
    return rejected(random, P, [(draw(random, Q), Law(Q))])


def one_matched_draw(random):
    """Rule V2 with a drawn draft."""
    return matched(random, P, [draw(random, Q)])


def independent(k):
    """Rule V4 with k independent siblings."""
    q = Law(Q, replacement=True)
    return lambda random: rejected(random, P, [(draw(random, Q, i), q) for i in range(k)])


def without_replacement(k):
    """Rule V4 with k siblings without replacement."""
    q = Law(Q)
    return lambda random: rejected(random, P, [(token, q) for token in draws_without_replacement(random, Q, k)])


def best(k):
    """Rule V5: the k most probable tokens of q."""
    return lambda random: rejected(random, P, [(token, None) for token in (3, 2, 1, 0)[:k]])


def best_matched(k):
    """Rule V2 with the k most probable tokens of q."""
    return lambda random: matched(random, P, (3, 2, 1, 0)[:k])


GOLDEN = {
    "V3": (one_draw, Fraction(3, 5)),
    "V2, drawn": (one_matched_draw, Fraction(1, 5)),
    "V4, 2 independent": (independent(2), Fraction(18, 25)),
    "V4, 3 independent": (independent(3), Fraction(96, 125)),
    "V4, 4 independent": (independent(4), Fraction(989, 1250)),
    "V4, 2 without replacement": (without_replacement(2), Fraction(107, 140)),
    "V4, 3 without replacement": (without_replacement(3), Fraction(14117, 16800)),
    "V4, 4 without replacement": (without_replacement(4), Fraction(1)),
    "V5, best": (best(1), Fraction(1, 10)),
    "V5, best 2": (best(2), Fraction(3, 10)),
    "V5, best 3": (best(3), Fraction(3, 5)),
    "V2, best": (best_matched(1), Fraction(1, 10)),
    "V2, best 2": (best_matched(2), Fraction(3, 10)),
    "V2, best 3": (best_matched(3), Fraction(3, 5)),
}


@pytest.mark.parametrize("rule", GOLDEN)
def test_golden_acceptance_and_law(rule):
    """The first token has exactly the target's law, and is a drafted one with the card's probability."""
    verified, acceptance = GOLDEN[rule]
    joint = law_of(verified)
    assert marginal(joint, 0) == as_dict(P)
    assert marginal(joint, 1)[True] == acceptance


def test_golden_residual():
    """What is left of p after a draw from q was rejected."""
    assert residual(P, Q, 0).tolist() == law(0.75, 0.25, 0, 0).tolist()


def test_shared_gumbel_noise_matches_as_often_as_its_formula():
    """Rule V6: P(both argmaxes agree) = sum_x 1 / sum_y max(p_y / p_x, q_y / q_x) = 19 / 35; 4 sigma."""
    p, q = P.astype(float), Q.astype(float)
    wanted = sum(1 / np.maximum(p / p[x], q / q[x]).sum() for x in range(4))
    assert wanted == pytest.approx(19 / 35)
    assert wanted >= (1 - 0.4) / (1 + 0.4)
    noise = Random(5).gumbel(0, "sample", 80_000).reshape(-1, 4)
    agree = np.mean((np.log(p) + noise).argmax(1) == (np.log(q) + noise).argmax(1))
    assert abs(agree - wanted) < 4 * (wanted * (1 - wanted) / len(noise)) ** 0.5


# --- wrong variants, with the laws that the cards give for them ---


def never_renormalised(random):
    """Without replacement, q zeroed at earlier siblings but never renormalised."""
    a, b = draws_without_replacement(random, Q, 2)
    zeroed = Q.copy()
    zeroed[a] = Fraction(0)
    return walk_siblings(random, P, [(a, Q, Q), (b, zeroed, zeroed)])


def residual_of_the_old_law(random):
    """Without replacement, the ratio with the renormalised law, the residual with q."""
    a, b = draws_without_replacement(random, Q, 2)
    zeroed = Q.copy()
    zeroed[a] = Fraction(0)
    return walk_siblings(random, P, [(a, Q, Q), (b, without(Q, a), zeroed)])


def argmax_called_drawn(random):
    """The argmax of q was drafted, but q is said to be its law."""
    return rejected(random, P3, [(1, Law(Q3))])


def fresh_draw_after_a_mismatch(random):
    """Sample and match, with a new draw in the place of the one that did not match."""
    token, accepted = matched(random, P3, [0])
    return (token, True) if accepted else (draw(random, P3, purpose="fresh"), False)


def best_of_independent_rows(random):
    """Every root-to-leaf row has a draw of its own, the first row that matches is kept."""
    for token in (0, 1):
        if draw(random, P3, token, "row") == token:
            return token, True
    return draw(random, P3, purpose="fresh"), False


def redrawn_from_the_target(random):
    """After a rejection the token is drawn from p."""
    token, accepted = rejected(random, P3, [(draw(random, Q3), Law(Q3))])
    return (token, True) if accepted else (draw(random, P3, purpose="fresh"), False)


def ratio_with_the_whole_law(random):
    """Top-p .8 on both sides, but the ratio with q before its truncation."""
    p, q = law(0.625, 0.375, 0), law(0, 0.625, 0.375)
    token = draw(random, q)
    return walk_siblings(random, p, [(token, Q3, Q3)])


WRONG = {
    never_renormalised: ([0.356633, 0.343367, 0.2, 0.1], 0.792857),
    residual_of_the_old_law: ([0.383163, 0.316837, 0.2, 0.1], 0.764286),
    argmax_called_drawn: ([0.4, 0.6, 0], None),
    fresh_draw_after_a_mismatch: ([0.75, 0.15, 0.1], None),
    best_of_independent_rows: ([0.675, 0.255, 0.07], None),
    redrawn_from_the_target: ([0.35, 0.39, 0.26], None),
    ratio_with_the_whole_law: ([0.53125, 0.46875, 0], None),
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda function: function.__name__)
def test_golden_laws_of_wrong_variants(wrong):
    """Plausible mistakes have the wrong laws that the cards compute, so exact enumeration tells them apart."""
    expected, acceptance = WRONG[wrong]
    joint = law_of(wrong)
    found = marginal(joint, 0)
    assert [float(found.get(token, 0)) for token in range(len(expected))] == pytest.approx(expected, abs=1e-6)
    if acceptance is not None:
        assert float(marginal(joint, 1)[True]) == pytest.approx(acceptance, abs=1e-6)


def test_the_free_walk_with_the_right_laws_is_reject():
    """What the wrong variants are made from is right when it is given the right laws."""

    def right(random):
        a, b = draws_without_replacement(random, Q, 2)
        return walk_siblings(random, P, [(a, Q, Q), (b, without(Q, a), without(Q, a))])

    assert law_of(right) == law_of(without_replacement(2))


# --- any tree ---


def random_law(rng, size):
    """Exact probabilities, some of them zero."""
    weights = [rng.choice((0, 1, 2, 5)) for _ in range(size)]
    weights[rng.randrange(size)] += 1
    return np.array([Fraction(weight, sum(weights)) for weight in weights], dtype=object)


MOST_DRAWS = 4


def grow(rng, random, tree, parent, laws, counter, depth):
    """Siblings of every kind under `parent`: chosen ones, then draws without replacement or with it."""
    size = len(laws[0])
    for token in rng.sample(range(size), rng.choice((0, 0, 1))):
        tree.add(parent, token)
    kind = rng.choice(("none", "without", "with", "two laws"))
    for q in rng.sample(laws, 2 if kind == "two laws" else 1):
        left = q
        for child in tree.children(parent):
            left = without(left, tree.nodes[child].token)
        of = Law(q, replacement=kind != "without")
        for _ in range({"none": 0, "without": 2, "with": 2, "two laws": 1}[kind]):
            counter[0] += 1
            if counter[0] > MOST_DRAWS:
                return
            weights = left if kind == "without" else q
            if not weights.any():
                break
            token = draw(random, weights, counter[0])
            tree.add(parent, token, of)
            left = without(left, token)
    if depth > 1:
        for child in tree.children(parent):
            grow(standard_random.Random(rng.random()), random, tree, child, laws, counter, depth - 1)


@pytest.mark.parametrize("seed", range(30))
def test_any_tree_has_the_targets_law(seed):
    """Two tokens: those of the walk, and plain draws after it, have the target's joint law, whatever was drafted.

    Trees of two levels with chosen and drawn siblings mixed, with and without replacement, of one law or of two; laws
    have zeros, so that drafts have tokens that the target does not, and the other way round.
    """
    rng = standard_random.Random(seed)
    rows = {after: random_law(rng, 3) for after in range(3)}
    target = TableModel.markov([row.tolist() for row in rows.values()])
    laws = [random_law(rng, 3) for _ in range(3)]
    shape = rng.random()

    def two_tokens(random):
        tree = root()
        grow(standard_random.Random(shape), random, tree, 0, laws, [0], 2)
        walk = reject(tree, [rows[node.token] for node in tree.nodes], random)
        text = [0, *(tree.nodes[i].token for i in walk.accepted), walk.token]
        while len(text) < 3:
            text.append(draw(random, rows[text[-1]], len(text), "plain"))
        return tuple(text[1:3])

    plain = target.texts(prompt=(0,), max_new_tokens=2, eos_token_ids=frozenset())
    assert law_of(two_tokens) == plain


def test_match_emits_the_targets_picks_whatever_was_drafted():
    """Rules V1, V2, V6: along the walk and after it, the tokens are the picks."""
    rng = standard_random.Random(1)
    for _ in range(50):
        tree = root()
        for _ in range(8):
            tree.add(rng.randrange(len(tree.nodes)), rng.randrange(3))
        picks = [rng.randrange(3) for _ in tree.nodes]
        walk = match(tree, picks)
        at = [0, *walk.accepted]
        assert [tree.nodes[i].token for i in walk.accepted] == [picks[i] for i in at[:-1]]
        assert walk.token == picks[walk.last]
        assert tree.child(walk.last, walk.token) is None


def test_a_trial_that_is_not_computed_ends_the_walk():
    """A drawn token without a node counts as tried: rejected, it leaves its residual, else it is the last."""

    def end_of_tree(random):
        tree = root()
        tree.reject(0, draw(random, Q), Law(Q))
        walk = reject(tree, [P], random)
        assert not walk.accepted
        return walk.token

    assert law_of(end_of_tree) == as_dict(P)


# --- guards ---


class Lowest(Random):
    """Every uniform number is zero."""

    def uniform(self, position, purpose, draw=0):
        """The smallest possible."""
        return 0.0


def test_a_token_without_probability_is_never_accepted():
    """Strict acceptance: not even by a uniform number of exactly zero, and not as a residual."""
    p, q = np.array([0.0, 0.25, 0.75]), np.array([0.9, 0.05, 0.05])
    for of in (Law(q), None):
        tree = root()
        tree.add(0, 0, of)
        walk = reject(tree, [p, p], Lowest(0))
        assert not walk.accepted
        assert walk.token != 0


def test_a_residual_of_nothing_keeps_the_law():
    """Where only rounding is left, generation goes on with p: no division by zero."""
    p = np.array([0.5, 0.5])
    assert residual(p, p, 0) is p
    almost = np.array([0.5 + 1e-17, 0.5])
    assert residual(p, almost, 1) is p
    certain = np.array([0.0, 1.0])
    assert residual(certain, None, 1) is certain


def test_equal_laws_accept_everything():
    """With q = p the chance is one for every token."""
    assert all(chance(P, P, token) == 1 for token in range(4))


def test_a_law_can_be_used_up():
    """Without its last token a law is all zero, which tells a drafter to stop."""
    assert not without(np.array([0.0, 1.0]), 1).any()


def test_floats_accept_like_fractions():
    """The walk on float64 takes the decisions that it takes on fractions, for the same uniform numbers."""
    for seed in range(200):
        found = []
        for kind in (float, object):
            tree, p, q = root(), P.astype(kind), Q.astype(kind)
            for token in draws_without_replacement(Random(seed), q, 3):
                tree.add(0, token, Law(q))
            found.append(reject(tree, [p] * 4, Random(seed)))
        assert found[0] == found[1]


def test_siblings_are_tried_in_the_order_of_their_draws():
    """Reversed, they have another law: the second draw's law depends on the first."""

    def reversed_siblings(random):
        q, tokens = Law(Q), draws_without_replacement(random, Q, 2)
        return rejected(random, P, [(token, q) for token in reversed(tokens)])

    assert marginal(law_of(reversed_siblings), 0) != as_dict(P)
