"""Unified layer skipping: which layers stay, and that they only draft."""

import pytest
from small_models import assert_plain_text, engine, host, start, text

from treille.drafters.layer_skip import kept_layers, layer_skip
from treille.errors import ParameterError


@pytest.mark.parametrize(
    ("layers", "speedup", "kept"),
    [
        (30, 5, [0, 6, 12, 18, 24, 29]),
        (32, 2, [*range(0, 30, 2), 31]),
        (24, 3, [*range(0, 19, 3), 23]),
        (24, 10, [0, 23]),
        (8, 1, list(range(8))),
    ],
)
def test_layers_that_stay(layers, speedup, kept):
    """The paper's choice: the first, the last, and multiples of one interval until floor(L / s) are kept."""
    assert kept_layers(layers, speedup) == kept


def test_fewer_than_two_layers_are_refused():
    """The first and the last layer have to stay."""
    with pytest.raises(ParameterError, match="at least 2 are needed"):
        kept_layers(24, 13)
    with pytest.raises(ParameterError, match="at least 1"):
        layer_skip(host(engine()), speedup=0.5)


def test_the_text_is_the_plain_text():
    """Greedy and with a seed, token for token, on a small model in debug mode."""
    assert_plain_text(engine(), "layer_skip:k=3")


def test_with_all_layers_every_draft_is_accepted():
    """A drafter that leaves out nothing is the target."""
    the_engine = engine()
    for seed, verification in ((None, "match"), (5, "match"), (5, "rejection")):
        run = start(the_engine, "layer_skip:k=3,speedup=1", seed=seed, verification=verification)
        text(the_engine, run)
        assert run.drafts.accepted == run.drafts.drafted > 0
