"""What a constraint adds to a step: what must follow the text, and what must follow a draft."""

import pytest
from driving import as_draft

from treille.draft_tree import DraftTree
from treille.drafters.base import Lookup
from treille.strategies import greedy
from treille.testing import TableModel, Words, run_alone

EOS = 7
UNIFORM = TableModel.markov([["1/8"] * 8] * 8)


class _first(Lookup):
    """Proposes token 1 under every node, and a sibling."""

    def lookup(self, run, node, budget):
        """One token of the text that is decoded, and one of another."""
        tree = DraftTree(node)
        for token in (1, 2)[: budget.rows]:
            tree.add(0, token)
        return tree


class Seen:
    """Keeps the drafted paths of every step."""

    def __init__(self):
        self.trees = []

    def drafted(self, tree):
        """A tree goes to the target."""
        self.trees.append([tuple(tree.path(i)) for i in range(1, len(tree.nodes))])

    def verified(self, tree, accepted):
        """Nothing to keep."""


def trees(words, *, rows=64, tokens=16, draft=True):
    """The drafted paths of each step, and the text."""
    seen = Seen()

    def watched(run):
        run.watchers.append(seen)
        return (yield from greedy().start(run))

    done = run_alone(
        watched, UNIFORM, constraint=Words(words, 8, EOS).bind, draft=as_draft(_first) if draft else None,
        draft_rows=rows, max_new_tokens=tokens, eos_token_ids=(EOS,),
    )  # fmt: skip
    return seen.trees, tuple(done.output.candidates[0].node.path[1:].tolist())


def test_what_must_follow_a_draft_is_drafted_behind_it():
    """Behind the path that is tried first, and not behind its siblings."""
    found, text = trees([(1, 3, 4, 5), (2, 6, 6)])
    assert found[0] == [(1,), (2,), (1, 3), (1, 3, 4), (1, 3, 4, 5)]
    assert text == (1, 3, 4, 5)
    assert len(found) == 1


def test_what_must_follow_the_text_comes_first():
    """A step that begins with it has no other draft."""
    found, text = trees([(3, 4, 1, 5), (3, 4, 2)])
    assert found[0] == [(3,), (3, 4)]
    assert text[:3] == (3, 4, 1)


@pytest.mark.parametrize(("rows", "tokens", "expected"), [(3, 16, 3), (64, 4, 4), (64, 2, 2)])
def test_it_stays_within_the_rows_and_the_room(rows, tokens, expected):
    """`draft_rows` bounds the tree, and a draft leaves room for the target's own token."""
    found, _ = trees([(1, 3, 4, 5), (2, 6, 6)], rows=rows, tokens=tokens)
    assert len(found[0]) == expected
    assert max(map(len, found[0])) <= tokens - 1
