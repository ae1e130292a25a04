"""SpecDec++; its law, for any rule to stop, is in tests/laws."""

import math
import random

import numpy as np
import pytest
from draft_tables import FALLING, TARGET, as_draft, proposed

from treille.drafters.specdec_pp import specdec_pp
from treille.errors import ParameterError


@pytest.mark.parametrize("seed", range(20))
def test_it_stops_where_a_rejection_has_become_likely(seed):
    """With oracle values the length equals brute force: the first i with 1 - a_1 … a_i > h, within the bounds."""
    rng = random.Random(seed)
    values = [rng.choice((0.5, 0.8, 0.95, 1.0)) for _ in range(10)]
    threshold, least, most = rng.random(), rng.randrange(1, 4), rng.randrange(4, 9)
    given = iter(values)

    class oracle(specdec_pp):
        def acceptance(self, q):
            """The next value."""
            return next(given)

    tree, _ = proposed(as_draft(oracle, threshold=threshold, least=least, most=most))
    enough = [i for i in range(1, 10) if 1 - math.prod(values[:i]) > threshold]
    assert tree.size == min(most, max(least, enough[0] if enough else 99))


def test_bounds():
    """Threshold 1 never stops early, threshold 0 drafts the least."""
    assert proposed("specdec_pp:threshold=1.0,most=7")[0].size == 7
    assert proposed("specdec_pp:threshold=0.0,least=2,most=7")[0].size == 2


def test_estimates():
    """The largest probability, and 1 - sqrt(.2 H) with the entropy H in nats."""
    opened = proposed("specdec_pp", {"target": TARGET, "draft": FALLING})[1].run.draft.drafter
    q = np.array(FALLING.law([0]), dtype=object)
    assert opened.acceptance(q) == 0.6
    entropy = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    opened.estimate = "entropy"
    assert opened.acceptance(q) == pytest.approx(1 - math.sqrt(0.2 * entropy))
    assert opened.acceptance(np.array([1.0, 0.0])) == 1.0


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        ("specdec_pp:least=3,most=2", "most=2: must be at least 3"),
        ("specdec_pp:least=0", "least=0"),
        ("specdec_pp:threshold=1.5", "threshold=1.5"),
        ("specdec_pp:estimate=head", "max, entropy"),
    ],
)
def test_refusals(draft, message):
    """Each refusal names the value."""
    with pytest.raises(ParameterError, match=message):
        proposed(draft)
