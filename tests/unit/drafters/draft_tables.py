"""What tests of drafters with a draft model share: tables, and the tree that a drafter proposes after a prompt."""

from fractions import Fraction

from treille.drafters.base import Budget, ConfiguredDrafter, DrafterInfo, Observation
from treille.strategies import greedy, sample
from treille.testing import TableModel, enumerate_outputs, run_alone

TARGET = TableModel.markov([["1/2", "3/10", "1/5"], ["1/5", "1/2", "3/10"], ["1/10", "3/10", "3/5"]])
DRAFT = TableModel.markov([["1/5", "1/2", "3/10"], ["2/5", "3/10", "3/10"], ["3/10", "2/5", "3/10"]])
MODELS = {"target": TARGET, "draft": DRAFT}

# The laws of the golden vectors, after every token.
WIDE = {
    "target": TableModel.markov([["2/5", "3/10", "1/5", "1/10"]] * 4),
    "draft": TableModel.markov([["1/10", "1/5", "3/10", "2/5"]] * 4),
}
FALLING = TableModel.markov([["3/5", "3/10", "1/10"]] * 3)
"""The law of DySpec's trace: the same at every node."""


def proposed(draft, models=MODELS, *, rows=32, depth=10, prompt=(0,), **options):
    """The tree that a drafter proposes after a prompt, and what it took."""

    def strategy(run):
        drafter = run.draft.drafter
        drafter.observe(Observation(run.tip.path, 0))
        return (yield from drafter.propose(run, run.tip, Budget(rows, depth)))

    done = run_alone(strategy, models, draft=draft, prompt=prompt, max_new_tokens=64, **options)
    return done.output, done


def paths(tree):
    """The drafted paths as letters, in the order of the nodes."""
    return ["".join("abcdefgh"[token] for token in tree.path(i)) for i in range(1, len(tree.nodes))]


def acceptance(draft, models=WIDE, verification="rejection"):
    """Exact probability that a drafted token is accepted in a step of one level."""
    law = enumerate_outputs(
        sample(),
        models,
        draft=draft,
        verification=verification,
        max_new_tokens=2,
        key=lambda done: done.run.drafts.accepted > 0,
    )
    return law.get(True, Fraction(0))


def long_text(draft, models=MODELS, *, tokens=600, strategy=None, **options):
    """What drafting did in a long text."""
    return run_alone(strategy or sample(), models, draft=draft, max_new_tokens=tokens, **options).run.drafts


def greedy_text(draft, models=MODELS, *, tokens=12, **options):
    """A greedy text drafted by `draft`."""
    return run_alone(greedy(), models, draft=draft, max_new_tokens=tokens, **options)


def as_draft(kind, **arguments):
    """A drafter class that need not be registered, as `draft=`."""
    kind.info = DrafterInfo(kind.__name__, kind, "", "", "")
    return ConfiguredDrafter(kind.info, arguments)
