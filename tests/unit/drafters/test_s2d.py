"""S2D: every token leaves at an exit, whatever pattern of exits came before it."""

import pytest
import torch
from small_models import PROMPT, assert_plain_text, engine, host, start, text
from tiny import decoder, full_logits

from treille.attention.plan import AttentionPlan, Block
from treille.cache.slots import KVMemory
from treille.drafters.base import Budget
from treille.drafters.s2d import s2d
from treille.errors import ParameterError
from treille.requests import Argmax, Distribution, Forward, Layers
from treille.strategy import Configured, Hypothesis, Output, StrategyInfo

NESTED = decoder(seed=5, layers=6)


def strategy(function):
    """A plain generator function as a configured strategy."""
    return Configured(StrategyInfo(function.__name__, function, "", "", "", do_sample=False), {}, {})


def exit_law(tokens, stop):
    """Log-probabilities after a text, computed in one pass through so many layers."""
    shape = NESTED.shape
    memory = KVMemory(shape.layers, shape.kv_heads, shape.head_dim, len(tokens), shape.dtype, shape.device)
    index = torch.arange(len(tokens))
    plan = AttentionPlan(index, index, (), (Block(0, len(tokens), None),))
    hidden, _ = NESTED.forward_hidden(torch.tensor(tokens), memory, plan, (), Layers(stop))
    return NESTED.logits(hidden)[-1].log_softmax(-1)


@pytest.mark.parametrize("pattern", ["252525", "222226", "626262", "445522", "2346543"])
def test_rows_of_any_pattern_of_exits_are_right(pattern):
    """A token that goes deeper sees what a run would in which every token went that deep; nothing is left behind."""
    the_engine = engine(2, nested=NESTED)

    def reads(run):
        node = run.tip
        for i, stop in enumerate(map(int, pattern)):
            how = {"layers": Layers(stop), "since": run.tip.length - 1}
            (law,) = yield Forward((node,), Distribution(raw=True), model="nested", **how)
            torch.testing.assert_close(law, exit_law(node.path.tolist(), stop), atol=1e-4, rtol=1e-4)
            node = node.child(10 + i)
        return Output((Hypothesis(node),))

    job = the_engine.submit(strategy(reads), start(the_engine))
    the_engine.run([job])
    job.output = None
    assert the_engine.runners["nested"].store.accounts().protected == 0


def test_the_text_is_the_plain_text():
    """Greedy and with a seed, token for token, on small models in debug mode."""
    assert_plain_text(engine(4, nested=NESTED), "s2d:k=3,exits=[2,4,6],thresholds=[0.3,0.3]")


def test_a_draft_of_the_target_itself_is_always_right():
    """With the last exit only, and the target's weights, every draft is accepted."""
    the_engine = engine(4, nested=decoder(layers=4))
    run = start(the_engine, "s2d:k=3,exits=[4]")
    text(the_engine, run)
    assert run.drafts.accepted == run.drafts.drafted > 0


@pytest.mark.parametrize(("threshold", "stop"), [(0.0, 2), (1.0, 6)])
def test_thresholds_choose_the_exit(threshold, stop):
    """Every token leaves at the first exit with threshold 0, and at the last with 1."""
    the_engine = engine(2, nested=NESTED)
    drafter = s2d(host(the_engine), k=3, exits=[2, 6], thresholds=[threshold])

    def drafts(run):
        (choice,) = yield Forward((run.tip,), Argmax())
        tree = yield from drafter.propose(run, run.tip.child(choice.token), Budget(8, 8))
        for index in range(1, len(tree.nodes)):
            before = tree.nodes[tree.parents[index]].path.tolist()
            assert tree.nodes[index].token == int(exit_law(before, stop).argmax())
        assert tree.size
        return Output((Hypothesis(run.tip.child(choice.token)),))

    the_engine.run([the_engine.submit(strategy(drafts), start(the_engine))])


def test_the_deepest_exit_is_the_whole_model():
    """Its rows are the model's own."""
    the_engine = engine(2, nested=NESTED)

    def reads(run):
        (law,) = yield Forward((run.tip,), Distribution(raw=True), model="nested", layers=Layers(6), since=3)
        torch.testing.assert_close(law, full_logits(NESTED, PROMPT)[-1].log_softmax(-1), atol=1e-4, rtol=1e-4)
        assert set(run.tip.kv) == {"nested"}
        return Output((Hypothesis(run.tip.child(1)),))

    the_engine.run([the_engine.submit(strategy(reads), start(the_engine))])


@pytest.mark.parametrize(
    "given",
    [
        {"exits": [0, 6]}, {"exits": [2, 7]}, {"exits": [4, 2]}, {"exits": []}, {"exits": [2, 6], "thresholds": []},
        {"exits": [2, 6], "thresholds": [0.1, 0.2]}, {"thresholds": [2.0, 0.1]}, {"k": 0},
    ],
)  # fmt: skip
def test_wrong_values_are_refused(given):
    """Each names the value and the way out."""
    with pytest.raises(ParameterError, match="draft"):
        s2d(host(engine(2, nested=NESTED)), **given)
