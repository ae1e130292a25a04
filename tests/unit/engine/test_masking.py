"""Masks of a forward: the same whoever computes them, a row per node, and a failure that stays with its run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from treille.engine import masking
from treille.engine.masking import Masks
from treille.errors import DecodingError
from treille.testing import Words
from treille.tree import Node

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 40  # more than one word, and not a whole number of them
EOS = 39


class GivesUp:
    """A constraint whose recognizer fails."""

    def masks(self, nodes: Sequence[Node], out: Any) -> None:
        """Fail after having written half of the answer."""
        out[: len(nodes) // 2] = -1
        raise DecodingError("the recognizer gave up")


def reading(constraint: Any, node: Node) -> Any:
    """What `Masks` looks at of a readout."""
    run = SimpleNamespace(constraint=constraint)
    return SimpleNamespace(node=node, pending=SimpleNamespace(task=SimpleNamespace(job=SimpleNamespace(run=run))))


def allowed(masks: Masks, chosen: list[Any]) -> list[list[int]]:
    """The tokens whose logits are left as they were, for each reading."""
    logits = torch.arange(len(chosen) * WIDTH, dtype=torch.float32).reshape(-1, WIDTH)
    before = logits.clone()
    assert masks.forbid(chosen, logits)
    kept = logits == before
    assert (logits[~kept] == -torch.inf).all()
    return [row.nonzero().flatten().tolist() for row in kept]


@pytest.fixture(params=[0, 1 << 60], ids=["beside", "at once"])
def _where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "OVERLAPPED", request.param)


@pytest.mark.usefixtures("_where")
def test_every_reading_gets_the_row_of_its_own_node():
    """In any order and selection, also where several readings share a node, and free runs among them."""
    tip = Node.root([7])
    words = Words([(3, 35), (3, 4), (31,)], WIDTH, EOS)
    one, other = words.bind(tip), Words([(32,)], WIDTH, EOS).bind(tip)
    after, dead = tip.child(3), tip.child(5)
    readings = [reading(one, tip), reading(other, tip), reading(None, tip), reading(one, after), reading(one, dead)]
    masks = Masks(readings, WIDTH)
    assert masks.any
    every = list(range(WIDTH))
    expected = [[3, 31], [32], every, [4, 35], []]
    for order in ([0, 1, 2, 3, 4], [3, 0], [1], [2, 4, 4], [0, 3, 4]):
        chosen = [readings[i] for i in order]
        assert allowed(masks, chosen) == [expected[i] for i in order]
        assert masks.empty(chosen) == [place for place, i in enumerate(order) if i == 4]
    assert not masks.forbid([readings[2]], torch.zeros(1, WIDTH))


def test_without_constraints_there_is_nothing_to_do():
    """No mask, no row, no thread."""
    masks = Masks([reading(None, Node.root([1]))], WIDTH)
    assert not masks.any


@pytest.mark.usefixtures("_where")
def test_a_failure_is_that_of_its_own_run():
    """Its rows allow nothing, and only its readings know why."""
    tip = Node.root([7])
    broken, whole = reading(GivesUp(), tip), reading(Words([(1,)], WIDTH, EOS).bind(tip), tip)
    masks = Masks([broken, reading(broken.pending.task.job.run.constraint, tip.child(1)), whole], WIDTH)
    assert allowed(masks, [broken, whole]) == [[], [1]]
    assert masks.empty([whole, broken]) == [1]
    assert isinstance(masks.failure(broken), DecodingError)
    assert masks.failure(whole) is None
