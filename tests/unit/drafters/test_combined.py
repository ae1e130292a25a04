"""Several drafters in one tree: what is merged, in which order, and what each of them learns."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from driving import TARGET, as_draft, host, run, text
from hypothesis import given, settings
from hypothesis import strategies as st

from treille.draft_tree import DraftTree, Law, Trial
from treille.drafters import configured
from treille.drafters.base import Budget, Lookup, Observation
from treille.drafters.combined import DEEPEST, combined
from treille.errors import ParameterError
from treille.requests import Argmax, TopK
from treille.strategies import sample
from treille.testing import TableModel, describe_difference, enumerate_outputs, run_alone
from treille.tree import Node

PATHS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3), max_size=4)
MODELS = {"target": TARGET, "draft": TableModel.markov([["1/5", "1/2", "3/10"]] * 3)}


class Fixed(Lookup):
    """Proposes always the same paths; remembers what it was told."""

    def __init__(self, host, paths=(), wants=()):
        super().__init__(host)
        self.paths = paths
        self.wants = tuple(wants)
        self.told: list[Observation] = []
        self.cut: list[int] = []

    def lookup(self, run, node, budget):
        """The paths."""
        tree = DraftTree(node)
        for path in self.paths:
            tree.add_chain(path)
        return tree

    def observe(self, seen):
        """Remember."""
        self.told.append(seen)

    def truncate(self, length):
        """Remember."""
        self.cut.append(length)


def of(*paths, **arguments) -> combined:
    """A combination of drafters that propose fixed paths."""
    return combined(host(), [as_draft(Fixed, paths=given, **arguments) for given in paths])


def proposed(drafter: combined, rows: int = 64) -> DraftTree:
    """The merged tree after the text 0."""
    asked = run([0])
    with pytest.raises(StopIteration) as stop:
        next(drafter.propose(asked, asked.tip, Budget(rows, 16)))
    tree: DraftTree = stop.value.value
    return tree


def nodes(tree: DraftTree) -> set[tuple[int, ...]]:
    """The paths of all nodes."""
    return {tuple(tree.path(index)) for index in range(1, tree.size + 1)}


def prefixes(paths) -> set[tuple[int, ...]]:
    """All beginnings."""
    return {tuple(path[: stop + 1]) for path in paths for stop in range(len(path))}


def score(path, sources, drafter) -> float:
    """Probability of a path: at every token, not all who propose it there are wrong."""
    result = 1.0
    for depth, token in enumerate(path):
        wrong = 1.0
        for fixed, source in zip(sources, drafter.sources, strict=True):
            siblings = list(
                dict.fromkeys(p[depth] for p in fixed if tuple(p[:depth]) == path[:depth] and len(p) > depth)
            )
            if token in siblings:
                wrong *= 1 - source.acceptance(depth, siblings.index(token))
        result *= 1 - wrong
    return result


@settings(max_examples=60)
@given(sources=st.tuples(PATHS, PATHS, PATHS), rows=st.integers(1, 20), history=st.lists(st.integers(0, 2), max_size=6))
def test_the_merged_tree_has_the_best_nodes_of_all(sources, rows, history):
    """All paths of all sources while there is room, then those of the highest estimated probability."""
    drafter = of(*sources)
    for token in history:  # some acceptance to rank by
        proposed(drafter)
        drafter.observe(Observation(Node.root([0, token, token]).path, 1, DraftTree(Node.root([0]))))
    found = nodes(proposed(drafter, rows))
    union = prefixes(path for given in sources for path in given)
    assert len(found) == min(rows, len(union))
    assert found <= union
    assert prefixes(found) == found
    scores = sorted((score(path, sources, drafter) for path in union), reverse=True)
    assert sorted((score(path, sources, drafter) for path in found), reverse=True) == pytest.approx(
        scores[: len(found)]
    )


def test_acceptance_is_counted_by_depth_and_rank():
    """A source is right at a depth if the token came, and is not asked below a wrong token; siblings by their rank."""
    drafter = of([[1, 1, 2]], [[2], [1, 0]])
    first, second = drafter.sources
    assert first.acceptance(0, 0) == 0.5
    for _ in range(2):
        proposed(drafter)
        drafter.observe(Observation(Node.root([0, 1, 0]).path, 1, DraftTree(Node.root([0]))))
    assert first.acceptance(0, 0) == 3 / 4
    assert first.acceptance(1, 0) == 1 / 4
    assert first.acceptance(2, 0) == 1 / 2  # never reached
    assert [second.acceptance(0, rank) for rank in (0, 1)] == [1 / 4, 3 / 4]
    assert second.acceptance(DEEPEST + 5, 0) == second.acceptance(DEEPEST, 0)
    # Tokens that nobody drafted count for nobody.
    drafter.observe(Observation(Node.root([0, 1, 0, 5]).path, 3))
    assert first.acceptance(0, 0) == 3 / 4


def test_a_source_that_is_right_wins_the_rows():
    """With one row, after a few steps it is the better source's, although the other one stands first."""
    drafter = of([[2]], [[1]])
    assert nodes(proposed(drafter, 1)) == {(2,)}
    drafter.observe(Observation(Node.root([0, 1]).path, 1, DraftTree(Node.root([0]))))
    assert nodes(proposed(drafter, 1)) == {(1,)}


def test_everybody_gets_the_readings_it_asked_for():
    """Shared readouts are asked for once; each source sees its own, in its own order."""
    drafter = combined(
        host(), [as_draft(Fixed, wants=[TopK(2), Argmax()]), as_draft(Fixed, wants=[Argmax()]), as_draft(Fixed)]
    )
    assert drafter.wants == (TopK(2), Argmax())
    tree = DraftTree(Node.root([0]))
    drafter.observe(Observation(Node.root([0, 1]).path, 1, tree, (), [("top", "argmax"), None]))
    told = [source.drafter.told[0].readings for source in drafter.sources]
    assert told == [[("top", "argmax"), None], [("argmax",), None], [(), None]]
    drafter.truncate(1)
    assert [source.drafter.cut for source in drafter.sources] == [[1], [1], [1]]


def test_a_branch_starts_from_what_was_counted():
    """And counts by itself from there."""
    drafter = combined(host(), [as_draft(Fixed, paths=[[1]]), as_draft(Fixed, paths=[[2]])])
    drafter.arguments = {"drafters": [as_draft(Fixed, paths=[[1]]), as_draft(Fixed, paths=[[2]])]}
    proposed(drafter)
    drafter.observe(Observation(Node.root([0, 1]).path, 1, DraftTree(Node.root([0]))))
    branch = drafter.branch()
    assert [source.acceptance(0, 0) for source in branch.sources] == [2 / 3, 1 / 3]
    proposed(branch)
    branch.observe(Observation(Node.root([0, 1]).path, 1, DraftTree(Node.root([0]))))
    assert drafter.sources[0].acceptance(0, 0) == 2 / 3 < branch.sources[0].acceptance(0, 0)


def test_draft_models_keep_their_nodes():
    """What a draft model computed for its proposal is not computed again when the merged proposal is accepted."""
    models = {"target": TARGET, "draft": TARGET}
    limits = {"prompt": (0, 1, 0), "max_new_tokens": 12, "do_sample": False}
    alone = run_alone(sample(), models, draft="draft_model:k=3", **limits)
    merged = run_alone(sample(), models, draft="combined:drafters=[draft_model(k=3),prompt_lookup(k=1)]", **limits)
    assert merged.text == alone.text
    assert merged.rows["draft"] == alone.rows["draft"]


class KeepsLaws(combined):
    """Wrong: drawn tokens keep the law of their draw, although a chosen one may stand in their place."""

    def propose(self, run, node, budget):
        """With the law of the draw put back."""
        tree = yield from super().propose(run, node, budget)
        if run.rejecting:
            q = MODELS["draft"].law(node.path.tolist())
            law = Law(np.array(q, dtype=object))
            drawn = self.sources[0].tree.nodes[1].token
            trials = [t for t in tree.trials[0] if t.token != drawn]
            tree.trials[0] = [*trials, Trial(drawn, tree.child(0, drawn), law)]
        return tree


def test_a_merged_draw_that_keeps_its_law_is_caught():
    """The draw may collide with a chosen token, which its law does not know: rule 22.2."""
    limits = {"prompt": (0, 1, 0), "max_new_tokens": 2, "verification": "rejection"}
    plain = enumerate_outputs(sample(), TARGET, **{**limits, "verification": "match"})
    drafters = ["draft_model(k=1)", configured("prompt_lookup", k=1)]
    right = enumerate_outputs(sample(), MODELS, draft=as_draft(combined, drafters=drafters), **limits)
    wrong = enumerate_outputs(sample(), MODELS, draft=as_draft(KeepsLaws, drafters=drafters), **limits)
    assert right == plain
    assert sum(wrong.values()) == Fraction(1)
    assert describe_difference(wrong, plain)


@pytest.mark.parametrize("others", list(product(["prompt_lookup", "suffix"], ["token_recycling", "draft_model(k=2)"])))
def test_combinations_of_combinations(others):
    """A combination is a drafter like any other."""
    limits = {"prompt": (0, 1, 0), "max_new_tokens": 10}
    plain = run_alone(sample(), MODELS, **limits)
    draft = f"combined:drafters=[{others[0]},combined(drafters=[copyspec(gamma=1),{others[1]}])]"
    assert run_alone(sample(), MODELS, draft=draft, **limits).text == plain.text


@pytest.mark.parametrize(
    ("drafters", "part"),
    [
        (["prompt_lookup"], "two or more"),
        ("prompt_lookup", "two or more"),
        (["prompt_lookup", 3], "no drafter"),
        (["prompt_lookup", "suffix(k=2"], "not closed"),
        (["prompt_lookup", "sufix"], "suffix"),
        (["prompt_lookup", "suffix(k=0)"], "k=0"),
    ],
)
def test_refusals(drafters, part):
    """Fewer than two, what is no drafter, and what the drafters themselves refuse."""
    with pytest.raises(ParameterError, match=part):
        combined(host(), drafters)


def test_a_drafter_with_a_verification_of_its_own_is_refused():
    """It could not draft while the target verifies somebody else's tree."""
    with pytest.raises(ParameterError, match="by itself"):
        run_alone(sample(), MODELS, prompt=(0,), draft="combined:drafters=[prompt_lookup,pearl]")


def test_the_text_alone_is_enough():
    """A drafter of the combination sees the text that another one drafted."""
    drafter = combined(host(9), ["prompt_lookup(k=2)", "suffix(k=2)"])
    drafter.observe(text(0, 4, 5, 0))
    assert nodes(proposed(drafter)) == {(4,), (4, 5)}
