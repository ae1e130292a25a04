"""RASD: a draft model's tree, fused with retrieved continuations."""

from __future__ import annotations

import pytest
from driving import TARGET, as_draft, host

from treille.drafters._guess import Guess
from treille.drafters.rasd import rasd
from treille.errors import ParameterError
from treille.sampling.random import Random
from treille.strategies import greedy, sample
from treille.testing import TableModel, run_alone
from treille.train.datastore import build_datastore

MODELS = {"target": TARGET, "draft": TableModel.random(3, 7)}
LIMITS = {"prompt": (0, 1, 0), "max_new_tokens": 10}
DOCUMENTS = [[0, 1, 0, 2, 1, 0], [1, 1, 0, 0, 2, 1], [2, 0, 0, 1, 2, 2]]


@pytest.fixture
def store(tmp_path) -> str:
    """Three documents over three tokens."""
    build_datastore(DOCUMENTS, tmp_path / "store", vocab_size=3)
    return str(tmp_path / "store")


def paths(guess: Guess) -> list[tuple[int, ...]]:
    """The path of every guessed token."""
    found: list[tuple[int, ...]] = []
    for parent, token in zip(guess.parents, guess.tokens, strict=True):
        found.append((*(found[parent] if parent >= 0 else ()), token))
    return found


class Recording(rasd):
    """Keeps what it found in every step."""

    steps: list = []  # noqa: RUF012 - of all instances of a test

    def propose(self, run, node, budget):
        """As before."""
        tree = yield from super().propose(run, node, budget)
        self.steps.append((self.candidates, self.guess, {tuple(tree.path(i)) for i in range(1, tree.size + 1)}))
        return tree

    def _beam_search(self, run, node, budget):
        self.candidates = yield from super()._beam_search(run, node, budget)
        return self.candidates

    def _retrieved(self, *arguments):
        self.guess = super()._retrieved(*arguments)
        return self.guess


def recorded(store: str, **arguments):
    """What a greedy run proposed."""
    Recording.steps = []
    run_alone(greedy(), MODELS, draft=as_draft(Recording, datastore=store, **arguments), **LIMITS)
    return Recording.steps


def test_the_fused_tree_has_all_paths_of_both(store):
    """With enough rows; every retrieved path begins with one of the draft model's first tokens."""
    steps = recorded(store, rows=30, k=2, depth=2, first=2, shortest=1)
    assert any(guess.tokens for _, guess, _ in steps)
    for candidates, guess, tree in steps:
        of_model: dict[int, tuple[int, ...]] = {0: ()}
        for i in range(1, len(candidates.tokens)):
            of_model[i] = (*of_model[candidates.parents[i]], candidates.tokens[i])
        first = {path[0] for path in of_model.values() if path}
        assert len(first) == 2 or not first
        assert tree == {path for path in of_model.values() if path} | set(paths(guess))
        assert {path[0] for path in paths(guess)} <= first


def test_rows_are_shared(store):
    """All rows are used while either has something: the model's share first, then what is retrieved."""
    retrieved = []
    for share in (0.0, 0.5, 1.0):
        fused = 0
        for candidates, guess, tree in recorded(store, rows=6, k=3, depth=3, first=3, shortest=1, share=share):
            assert len(tree) == 6 or len(tree) >= len(candidates.tokens) - 1
            assert len(tree) <= 6
            fused += len(tree & set(paths(guess)))
        retrieved.append(fused)
    assert retrieved[0] > retrieved[1] > retrieved[2]


def test_retrieved_tokens_are_ranked_by_both():
    """Frequency times the draft model's probability of the first token; parents stay before children."""
    guess = Guess([5, 6, 7, 8], [-1, 0, -1, 2], [0.6, 0.6, 0.4, 0.3])
    ranked = guess.weighted({5: 0.1, 7: 0.8})
    assert ranked.tokens == [7, 8, 5, 6]
    assert ranked.parents == [-1, 0, -1, 2]
    assert ranked.probabilities == pytest.approx([0.32, 0.24, 0.06, 0.06])
    assert guess.weighted({}) == guess


def test_more_of_both_is_accepted_than_of_one(store):
    """At equal rows, on a target that knows the documents: fused is no worse than the better source."""

    def conditional(path):
        for document in DOCUMENTS:
            for at in range(len(document) - 2):
                if tuple(document[at : at + 2]) == tuple(path[-2:]):
                    return [int(token == document[at + 2]) for token in range(3)]
        return [0, 1, 0]

    target = TableModel(3, conditional)
    drafts = {
        "model": "dynamic_tree:rows=4,k=2,depth=2",
        "retrieved": f"retrieval:datastore={store},nodes=4",
        "fused": f"rasd:datastore={store},rows=4,k=2,depth=2,first=3",
    }
    models = {"target": target, "draft": TableModel.random(3, 3)}
    steps = {
        name: run_alone(greedy(), models, draft=draft, **LIMITS).run.drafts.steps for name, draft in drafts.items()
    }
    assert steps["fused"] <= min(steps["model"], steps["retrieved"])


def test_a_text_beyond_the_draft_models_context_is_still_retrieved_for(store):
    """The draft model has nothing to say there, so nothing is pruned."""
    drafter = rasd(host(3), datastore=store, shortest=1, model=3)
    drafter.context = 2
    Recording.steps = []

    class Short(Recording):
        def __init__(self, *given, **arguments):
            super().__init__(*given, **arguments)
            self.context = 0

    draft = as_draft(Short, datastore=store, shortest=1)
    done = run_alone(sample(), MODELS, draft=draft, random=Random(1), **LIMITS)
    assert not done.forwards["draft"]
    assert done.run.drafts.drafted


def test_refusals(store):
    """Values that cannot be honoured are named."""
    for wrong in ({"rows": 0}, {"share": 1.5}, {"k": 0}, {"depth": 0}, {"first": 0}, {"length": 0}, {"longest": 99}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            rasd(host(), datastore=store, model=3, **wrong)
    with pytest.raises(ParameterError, match="datastore"):
        rasd(host(), model=3)
    with pytest.raises(ParameterError, match="no table"):
        run_alone(greedy(), TARGET, draft=f"rasd:datastore={store}", **LIMITS)
