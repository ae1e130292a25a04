"""TriForce: two levels of verification, and the chunks that the middle level sees."""

from fractions import Fraction

import numpy as np
import pytest
from driving import TARGET, as_draft
from small_models import assert_plain_text, engine, host, start, text
from tiny import decoder

from treille.drafters import triforce as module
from treille.drafters.triforce import best_chunks, triforce
from treille.errors import ParameterError
from treille.sampling.verify import Walk, reject
from treille.strategies import sample
from treille.testing import TableModel, enumerate_outputs

DRAFT = TableModel.markov([["1/5", "1/2", "3/10"], ["2/5", "3/10", "3/10"], ["3/10", "2/5", "3/10"]])
MODELS = {"target": TARGET, "draft": DRAFT}
GIVEN = {"prompt": (0, 1, 0), "max_new_tokens": 4, "verification": "rejection"}


def test_chunks_with_the_most_attention():
    """The first chunk and the best others, in order, neighbours joined; the last one may be short."""
    mass = np.array([0, 0, 5, 5, 1, 1, 0, 0, 9.0])
    assert best_chunks(mass, 2, 1) == ((0, 2),)
    assert best_chunks(mass, 2, 2) == ((0, 4),)
    assert best_chunks(mass, 2, 3) == ((0, 4), (8, 9))
    assert best_chunks(mass, 2, 99) == ((0, 9),)


def test_three_levels_have_the_plain_law():
    """Draft model, target with a part of its context (a table: mixed with the uniform law), target: all different."""
    plain = enumerate_outputs(sample(), TARGET, prompt=(0, 1, 0), max_new_tokens=4)
    for draft in ("triforce:k=2,budget=4,chunk=2", "triforce:k=3,budget=2,chunk=1,refresh=1"):
        assert enumerate_outputs(sample(), MODELS, draft=draft, **GIVEN) == plain


def test_drawing_from_the_middle_law_after_a_rejection_is_wrong(monkeypatch):
    """The reference implementation's middle level draws from its own law, not from the residual: another output law."""

    def careless(tree, laws, random):
        walk = reject(tree, laws, random)
        position = tree.nodes[0].length
        return Walk(walk.accepted, random.categorical(laws[walk.last], position, "residual", 1))

    plain = enumerate_outputs(sample(), TARGET, prompt=(0, 1, 0), max_new_tokens=3)
    monkeypatch.setattr(module, "reject", careless)
    wrong = enumerate_outputs(sample(), MODELS, draft=as_draft(triforce, k=1, budget=4, chunk=2), **GIVEN)
    assert wrong != plain
    assert sum(wrong.values()) == Fraction(1)


def test_the_text_is_the_plain_text():
    """Greedy and with a seed, token for token, on small models in debug mode, with chunks chosen several times."""
    the_engine = engine(4, draft=decoder(seed=3, layers=2))
    assert_plain_text(the_engine, "triforce:k=3,budget=8,chunk=4,refresh=6,sinks=2,window=5")


def test_a_middle_level_that_sees_everything_is_the_target():
    """With a budget beyond the context the target accepts all that the middle level passes on."""
    the_engine = engine(4, draft=decoder(seed=3, layers=2))
    for seed, verification in ((None, "match"), (4, "match"), (4, "rejection")):
        run = start(the_engine, "triforce:k=3,budget=400", seed=seed, verification=verification)
        text(the_engine, run)
        assert run.drafts.accepted == run.drafts.drafted > 0


@pytest.mark.parametrize("given", [{"budget": 8, "chunk": 8}, {"k": 0}, {"chunk": 0}, {"sinks": -1}, {"refresh": 0}])
def test_wrong_values_are_refused(given):
    """Each names the value."""
    with pytest.raises(ParameterError, match=next(iter(given))):
        triforce(host(engine(2, draft=decoder(seed=3, layers=2))), **given)
