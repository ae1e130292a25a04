"""Suffix decoding, and the suffix tree with counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from driving import as_draft, host, run, text
from hypothesis import given, settings
from hypothesis import strategies as st

from treille.drafters._suffix_tree import SuffixTree, Text, Vertex, best_guess, likeliest_path, likeliest_tree
from treille.drafters.base import Budget, Observation
from treille.drafters.suffix import suffix
from treille.errors import ParameterError
from treille.sampling.random import Random
from treille.strategies import sample
from treille.testing import TableModel, run_alone
from treille.tree import Node

AMPLE = Budget(64, 64)
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.lists(st.integers(0, 1), max_size=4), st.integers(0, 20)),
    max_size=25,
)


def counted(texts: list[Text], depth: int) -> Counter[tuple[int, ...]]:
    """How often each piece of at most `depth` tokens occurs: every suffix of every text is visited."""
    found: Counter[tuple[int, ...]] = Counter()
    for known in texts:
        for start in range(known.oldest, len(known.tokens)):
            for stop in range(start + 1, min(start + depth, len(known.tokens)) + 1):
                found[tuple(known.tokens[start:stop])] += 1
    return found


def flat(vertex: Vertex, path: tuple[int, ...] = ()) -> Counter[tuple[int, ...]]:
    """The counts of a tree, by path; checks that vertices stand where texts branch or end, and nowhere else."""
    found: Counter[tuple[int, ...]] = Counter()
    for token, child in vertex.children.items():
        label = tuple(child.label)
        below = sum(grandchild.count for grandchild in child.children.values())
        assert label
        assert label[0] == token
        assert child.parent is vertex
        assert child.count >= below
        assert len(child.children) != 1 or child.count > below
        found.update({path + label[:length]: child.count for length in range(1, len(label) + 1)})
        found.update(flat(child, path + label))
    return found


def built(steps, depth: int, most: int | None = None) -> tuple[SuffixTree, list[Text]]:
    """A tree of three texts after some growing and cutting."""
    tree = SuffixTree(depth, most)
    texts = [tree.begin() for _ in range(3)]
    for which, grow, tokens, length in steps:
        if grow:
            texts[which].extend(tokens)
        else:
            texts[which].truncate(length)
    return tree, texts


@settings(max_examples=80)
@given(steps=STEPS, depth=st.integers(2, 6), most=st.sampled_from([None, 1, 8]))
def test_counts_are_those_of_all_suffixes(steps, depth, most):
    """However the texts were added, cut back and forgotten; and without them the tree is empty."""
    tree, texts = built(steps, depth, most)
    wanted = counted(texts, depth)
    assert flat(tree.root) == wanted
    assert tree.held == tree.root.count == sum(len(known.tokens) - known.oldest for known in texts)
    assert most is None or tree.held <= most
    for tokens, count in wanted.items():
        place = tree.find(tokens)
        assert place is not None
        assert place.vertex.count == count
        assert tuple(place.vertex.label)[: place.used] == tokens[len(tokens) - place.used :]
    assert tree.find([2]) is None
    for known in texts:
        known.truncate(0)
    assert not tree.root.children
    assert tree.held == tree.root.count == 0


@settings(max_examples=40)
@given(steps=STEPS, depth=st.integers(2, 6), context=st.lists(st.integers(0, 1), max_size=8))
def test_matches_are_the_longest_with_their_number_of_occurrences(steps, depth, context):
    """All lengths that occur, those left out that occur as often as a longer one."""
    tree, texts = built(steps, depth)
    for tokens, found in [(context, tree.matches(context)), *((t.tokens, t.matches()) for t in texts)]:
        wanted, occurrences = [], 0
        for length in range(min(len(tokens), depth - 1), 0, -1):
            place = tree.find(tokens[-length:])
            if place is not None and place.vertex.count > occurrences:
                wanted.append((length, place))
                occurrences = place.vertex.count
        followed = [(length, place) for length, place in wanted if place.vertex.children]
        assert list(found) == (wanted if tokens is context else followed)


@settings(max_examples=40)
@given(
    steps=STEPS,
    context=st.lists(st.integers(0, 1), max_size=8),
    most=st.integers(1, 6),
    least=st.sampled_from([0.0, 0.3, 0.6]),
)
def test_the_guess_is_the_best_over_all_matches(steps, context, most, least):
    """Stopping early and leaving out matches with the same occurrences loses nothing; probabilities fall on a path."""
    tree, _ = built(steps, 6)
    for grow in (likeliest_path, likeliest_tree):
        guess = best_guess(tree.matches(context), lambda length: min(most, length + 1), grow, least)
        scores = [0.0]
        for length in range(1, min(len(context), 5) + 1):
            place = tree.find(context[-length:])
            if place is not None:
                scores.append(grow(place, min(most, length + 1), least).score)
        assert guess.score == pytest.approx(max(scores))
        for parent, probability in zip(guess.parents, guess.probabilities, strict=True):
            assert least <= probability <= (guess.probabilities[parent] if parent >= 0 else 1)


def test_the_tree_has_the_most_probable_tokens():
    """After 0: 1 three times of four, then 2 each time; and 3 once."""
    tree = SuffixTree(4)
    for tokens in ([0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 3, 4]):
        tree.begin().extend(tokens)
    place = tree.find([0])
    assert place is not None
    path = likeliest_path(place, 8, 0.1)
    assert (path.tokens, path.probabilities) == ([1, 2], [0.75, 0.75])
    found = likeliest_tree(place, 3, 0.1)
    assert (found.tokens, found.parents, found.probabilities) == ([1, 2, 3], [-1, 0, -1], [0.75, 0.75, 0.25])
    assert likeliest_tree(place, 8, 0.3).tokens == [1, 2]


def test_endings_count():
    """A text that ended after 0 makes what follows 0 in another one less certain."""
    tree = SuffixTree(4)
    tree.begin().extend([0, 1])
    tree.begin().extend([5, 0])
    place = tree.find([0])
    assert place is not None
    assert likeliest_path(place, 2, 0).probabilities == [0.5]


def test_drafts_go_on_below_the_deepest_vertices():
    """A match as deep as the tree is still followed by a draft: the text that the label was cut from goes on."""
    tree = SuffixTree(4)
    tree.begin().extend(range(10, 30))
    found = best_guess(tree.matches([10, 11, 12]), lambda _: 8, likeliest_path, 0.1)
    assert found.tokens == list(range(13, 21))
    assert best_guess(tree.matches([10, 11, 12]), lambda _: 8, likeliest_tree, 0.1).tokens == found.tokens


def proposal(drafter: suffix, tokens: list[int], budget: Budget = AMPLE, **asked) -> list[int]:
    """The drafted chain."""
    now = run(tokens, **asked)
    tree = drafter.lookup(now, now.tip, budget)
    return tree.path(tree.size)


def test_a_longer_match_is_trusted_further():
    """Factor x match + offset tokens at the most, k, and the budget."""
    tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3]
    for arguments, wanted in (
        ({"factor": 1}, [4, 5, 6]),
        ({"factor": 1, "offset": 1}, [4, 5, 6, 7]),
        ({"factor": 2}, [4, 5, 6, 7, 8, 9]),
        ({"factor": 2, "k": 2}, [4, 5]),
    ):
        drafter = suffix(host(11), **arguments)
        drafter.observe(text(*tokens))
        assert proposal(drafter, tokens) == wanted
    assert proposal(drafter, tokens, Budget(1, 9)) == [4]
    assert proposal(drafter, tokens, ends=(4,)) == [4]
    drafter = suffix(host(11))
    drafter.observe(text(1, 2, 3))
    assert proposal(drafter, [1, 2, 3]) == []


def test_answers_are_kept_for_later_runs_but_prompts_are_not():
    """A later drafter of the same language model knows what an earlier text had after its prompt."""
    memory = {}
    earlier = suffix(host(20, memory))
    earlier.observe(text(1, 2, 3))
    earlier.observe(Observation(Node.root([1, 2, 3, 10, 11, 12, 13]).path, 3))
    later = suffix(host(20, memory))
    later.observe(text(2, 10, 11))
    assert proposal(later, [2, 10, 11]) == [12, 13]
    assert proposal(later, [2, 10, 11], verification="rejection") == []  # there the text would depend on it
    later = suffix(host(20, memory))
    later.observe(text(9, 1, 2))
    assert proposal(later, [9, 1, 2]) == []
    assert suffix(host(20, memory), cache_tokens=0).branch() is not None


def test_the_cache_is_bounded_and_cut_back():
    """The oldest suffixes go first; a text that departs takes its answer with it."""
    memory = {}
    drafter = suffix(host(20, memory), cache_tokens=3)
    drafter.observe(text(0))
    drafter.observe(Observation(Node.root([0, 1, 2, 3, 4, 5]).path, 1))
    (tree,) = memory.values()
    assert tree.held == 3
    assert tree.find([3]) is not None
    assert tree.find([2, 3]) is None
    drafter.truncate(4)
    drafter.observe(Observation(Node.root([0, 1, 2, 3, 7]).path, 4))
    assert tree.find([3, 4]) is None
    assert tree.find([3, 7]) is not None


@pytest.mark.parametrize("verification", ["match", "rejection"])
def test_earlier_runs_change_no_text(verification):
    """By rejection and by matching, with an empty memory or a full one; by matching they make it faster."""
    memory = {}

    class Remembering(suffix):
        def __init__(self, host, **arguments):
            super().__init__(replace(host, memory=memory), **arguments)

    limits = {"prompt": (0, 1, 0), "max_new_tokens": 12, "verification": verification}
    draft = as_draft(Remembering, factor=4.0)
    runs = [run_alone(sample(), TableModel.random(3, 4), random=Random(2), draft=draft, **limits) for _ in range(3)]
    assert memory
    assert len({done.text for done in runs}) == 1
    steps = [done.run.drafts.steps for done in runs]
    assert steps[2] < steps[0] if verification == "match" else len(set(steps)) == 1


@pytest.mark.parametrize(
    "wrong", [{"k": 0}, {"depth": 1}, {"factor": -1}, {"min_prob": 1.5}, {"shape": "bush"}, {"cache_tokens": -1}]
)
def test_refusals(wrong):
    """Values that cannot be honoured are named."""
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        suffix(host(), **wrong)
