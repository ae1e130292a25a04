"""Token Recycling: the matrix of candidates, and the tree that is filled from it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from driving import TARGET, as_draft, host, run, text, top
from hypothesis import given
from hypothesis import strategies as st

from treille.draft_tree import DraftTree
from treille.drafters._templates import Template, grown_paths, reference_paths, template_paths
from treille.drafters.base import Budget, Observation
from treille.drafters.token_recycling import UNSET, token_recycling
from treille.errors import ParameterError
from treille.sampling.random import Random
from treille.strategies import greedy, sample
from treille.testing import TableModel, assert_lossless, enumerate_outputs, run_alone

AMPLE = Budget(80, 16)


def filled(vocab_size: int, k: int, template: object = "2.2.2") -> token_recycling:
    """A drafter that knows k candidates of every token: t + 1, t + 2, … modulo V."""
    drafter = token_recycling(host(vocab_size), k=k, template=template)
    tops = [[(token + 1 + rank) % vocab_size for rank in range(k)] for token in range(vocab_size)]
    drafter.table.learn(range(vocab_size), tops)
    return drafter


def test_reference_template():
    """80 nodes, 8, 21, 25, 15, 8 and 3 by depth; the first child of the first child has eight."""
    paths = reference_paths()
    assert len(set(paths)) == len(paths) == 80
    assert Counter(map(len, paths)) == {1: 8, 2: 21, 3: 25, 4: 15, 5: 8, 6: 3}
    assert sum(path[:2] == (0, 0) and len(path) == 3 for path in paths) == 8


@given(size=st.integers(1, 120), k=st.integers(1, 6))
def test_grown_templates_are_trees(size, k):
    """Every node's parent and elder siblings are in the tree, and no node has more than k children."""
    paths = grown_paths(size, k)
    assert len(set(paths)) == size
    assert template_paths([list(path) for path in paths], k) == sorted(paths, key=lambda path: (len(path), path))


@pytest.mark.parametrize(
    "template", ["3.3.3", 0, True, [], [0, 1], [[0], [0, 1]], [[1]], [[0, 0]], [[0], [-1]], [[0], [1], [2]]]
)
def test_wrong_templates_are_refused(template):
    """A shape that is no tree, or has a rank beyond k, is refused with the way out."""
    with pytest.raises(ParameterError, match="template"):
        token_recycling(host(), k=2, template=template)


@given(st.integers(1, 80), st.lists(st.integers(0, 79), max_size=60), st.randoms(use_true_random=False))
def test_what_fits_a_budget_is_a_tree(rows, kept, random):
    """Whatever was accepted, a beginning of the order holds parent and elder sibling of each of its nodes."""
    template = Template(reference_paths())
    drafter = filled(100, 8)
    drafter.table.template = template
    process = run([3])
    for node in kept:
        tree = drafter.lookup(process, process.tip, Budget(random.randint(1, 80), 16))
        accepted = [min(node, tree.size)]
        while tree.parents[accepted[0]] > 0:
            accepted.insert(0, tree.parents[accepted[0]])
        template.count(drafter._filled, tree, [at for at in accepted if at])
    begun = {template.paths[node] for node in template.order[:rows]}
    for path in begun:
        assert len(path) == 1 or path[:-1] in begun
        assert path[-1] == 0 or (*path[:-1], path[-1] - 1) in begun


def test_the_order_follows_acceptance():
    """A rank that is accepted more often than its prior says moves forward."""
    template = Template(template_paths([[0], [1], [0, 0]], 2))
    assert template.order == [0, 2, 1]
    tree = DraftTree(run([3]).tip)
    filled_nodes = [(0, -1, 5), (1, -1, 6), (2, 0, 7)]
    for _, parent, token in filled_nodes:
        tree.add(parent + 1, token)
    for _ in range(64):
        template.count(filled_nodes, tree, [1])
        template.count(filled_nodes, tree, [2])
    assert template.order == [0, 1, 2]


def test_tree_is_the_template_filled_by_rank():
    """The node of ranks i1 … id holds M[parent's token][id]: with M[t][i] = t + 1 + i, the sum of the ranks."""
    drafter = filled(100, 8)
    process = run([3])
    tree = drafter.lookup(process, process.tip, AMPLE)
    assert tree.size == 80
    expected = {tuple(np.cumsum([rank + 1 for rank in path]) + 3) for path in reference_paths()}
    assert {tuple(tree.path(index)) for index in range(1, 81)} == expected


def test_budget_and_end_of_text():
    """Never more rows, never deeper than the budget, and nothing below an end token."""
    drafter = filled(100, 8)
    for rows, depth in [(1, 1), (7, 2), (30, 3), (80, 1)]:
        process = run([3])
        tree = drafter.lookup(process, process.tip, Budget(rows, depth))
        assert tree.size <= rows
        assert tree.depth <= depth
    process = run([3], ends=(4,))
    tree = drafter.lookup(process, process.tip, AMPLE)
    assert all(tree.nodes[parent].token != 4 for parent in tree.parents[1:])


def test_unset_candidates_vanish():
    """A row that is only partly known gives no node twice, and nothing hangs below what is missing."""
    drafter = token_recycling(host(10), k=8, warm=False)
    process = run([1, 2, 1])
    drafter.observe(text(1, 2, 1))
    tree = drafter.lookup(process, process.tip, AMPLE)
    assert [tree.path(index) for index in range(1, tree.size + 1)][:3] == [[2], [2, 1], [2, 1, 2]]
    assert tree.size == tree.depth == 6  # a chain: 2 follows 1, 1 follows 2


def test_the_text_stands_in_until_the_target_speaks():
    """Successors in the text, the latest first, until a verified node gives the target's own."""
    drafter = token_recycling(host(10), k=3, warm=False)
    drafter.observe(text(1, 2, 1, 3, 1, 2, 1, 4))
    assert drafter.table.after[1].tolist() == [4, 2, 3]
    drafter.table.learn([1], [(7, 8)])
    drafter.observe(text(1, 5))
    assert drafter.table.after[1].tolist() == [7, 8, UNSET]


def test_each_row_is_the_top_k_of_the_last_node_with_that_token():
    """All verified nodes teach, rejected ones too; of several with one token, an accepted one is kept."""
    drafter = token_recycling(host(10), k=2)
    process = run([5])
    tree = DraftTree(process.tip)
    first = tree.add(0, 6)
    second = tree.add(0, 7)
    tree.add(first, 7)
    tree.add(second, 5)
    readings = [top(1, 2), top(3, 4), top(5, 6), top(7, 8), top(9, 0)]
    node = tree.nodes[second].child(5)
    drafter.observe(Observation(node.path, 1, tree, (second,), readings))
    after = drafter.table.after
    assert after[5].tolist() == [1, 2]  # the root, accepted, over the rejected node
    assert after[6].tolist() == [3, 4]
    assert after[7].tolist() == [5, 6]  # the accepted child over the grandchild that came later


def test_dead_nodes_teach_nothing():
    """A node at which no token is allowed has no reading."""
    drafter = token_recycling(host(10), k=2)
    process = run([5])
    tree = DraftTree(process.tip)
    tree.add(0, 6)
    drafter.observe(Observation(tree.nodes[0].child(1).path, 1, tree, (), [top(1, 2), None]))
    assert drafter.table.after[6].tolist() == [UNSET, UNSET]


class dirty(token_recycling):
    """A matrix left over from other texts."""

    def empty(self):
        """Wrong candidates, given by a target."""
        table = super().empty()
        table.learn([0, 1, 2], [(1, 2), (0,), (2, 1)])
        return table


@pytest.mark.parametrize("verification", ["match", "rejection"])
def test_law_with_a_dirty_matrix(verification):
    """Rules V2 and V5 on the cards' model, k = 2 and three nodes: the joint law of four tokens is exact."""
    plain = enumerate_outputs(sample(), TARGET, max_new_tokens=4)
    draft = as_draft(dirty, k=2, template=[[0], [1], [0, 0]])
    assert_lossless(sample(), plain, TARGET, draft=draft, verification=verification, max_new_tokens=4)


def test_a_cycle_is_drafted_whole_once_it_is_known():
    """On a deterministic cycle the second round is accepted to the depth of the template."""
    cycle = TableModel.markov([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    done = run_alone(greedy(), cycle, max_new_tokens=60, draft="token_recycling:k=1,template=[[0],[0,0],[0,0,0]]")
    drafts = done.run.drafts
    assert drafts.emitted == 60
    assert drafts.kept == drafts.tried  # nothing wrong is ever drafted
    assert drafts.emitted / drafts.steps > 3


def test_memory_makes_later_runs_faster_and_keeps_their_text():
    """A warm matrix is the language model's; by rejection every text begins with an empty one."""
    memory = {}
    first = token_recycling(host(10, memory), k=2)
    first.table.learn([1], [(2, 3)])
    process = run([1])
    assert token_recycling(host(10, memory), k=2).lookup(process, process.tip, AMPLE).size == 2
    assert token_recycling(host(10, memory), k=2, warm=False).lookup(process, process.tip, AMPLE).size == 0
    process = run([1], verification="rejection")
    assert token_recycling(host(10, memory), k=2).lookup(process, process.tip, AMPLE).size == 0


def test_branches_share_the_matrix():
    """What one text of a run learns, the others draft."""
    drafter = token_recycling(host(10), k=2, warm=False)
    drafter.table.learn([1], [(2, 3)])
    assert drafter.branch().table is drafter.table


def test_text_of_a_seed_by_rejection_does_not_depend_on_other_texts():
    """Under `rejection` drafts shape the text, so they must come from this text alone."""
    limits = {"random": Random(5), "max_new_tokens": 12, "draft": "token_recycling:k=2", "verification": "rejection"}
    two = run_alone(sample(num_return_sequences=2), TARGET, **limits)
    three = run_alone(sample(num_return_sequences=3), TARGET, **limits)
    assert three.texts[:2] == two.texts
