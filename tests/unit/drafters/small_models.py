"""Small random models behind an engine in debug mode, and texts drafted on them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from tiny import EOS, decoder

from treille.drafters import parse
from treille.drafters.base import Host
from treille.drafters.speculation import Speculation
from treille.engine.engine import Engine
from treille.engine.runner import ModelRunner
from treille.sampling.random import Random
from treille.strategies import greedy, sample
from treille.strategy import Limits, Run
from treille.tree import Node

PROMPT = [5, 9, 17, 33, 2, 8, 61, 70, 3, 3, 4, 8, 12, 44, 50, 51, 52, 9]
TOKENS = 40


def engine(layers: int = 6, **models: Any) -> Engine:
    """An engine with a target of so many layers and further models by name."""
    runners = {"target": ModelRunner("target", decoder(layers=layers), slots=2000, prefix_cache=False, debug=True)}
    for name, model in models.items():
        runners[name] = ModelRunner(name, model, slots=2000, prefix_cache=False, debug=True)
    return Engine(runners, debug=True)


def host(the_engine: Engine, *, do_sample: bool = False) -> Host:
    """Where drafters run on this engine."""
    shapes = {name: runner.decoder.shape for name, runner in the_engine.runners.items()}
    return Host(shapes["target"], shapes.__getitem__, {}, None, frozenset({EOS}), do_sample)


def start(the_engine: Engine, draft: Any = None, *, seed: int | None = None, verification: Any = "match") -> Run:
    """A run over the prompt; a seed makes it sample. `draft`: a drafter's name with parameters, or a drafter."""
    speculation = None
    if draft is not None:
        made = parse(draft).open(host(the_engine, do_sample=seed is not None)) if isinstance(draft, str) else draft
        speculation = Speculation(made, rows=32, verification=verification)
    return Run(
        Node.root(PROMPT), Random(seed or 0), Limits(TOKENS, frozenset({EOS})), do_sample=seed is not None,
        draft=speculation,
    )  # fmt: skip


def text(the_engine: Engine, run: Run) -> list[int]:
    """What the run generates; the memory holds nothing of it afterwards."""
    job = the_engine.submit(sample() if run.do_sample else greedy(), run)
    (output,) = the_engine.run([job])
    tokens: list[int] = output.candidates[0].node.path[len(PROMPT) :].tolist()
    return tokens


def assert_plain_text(the_engine: Engine, draft: str) -> Run:
    """The drafted text is the plain one, greedy and drawn, token for token; returns the greedy run."""
    for seed in (None, 3):
        plain = text(the_engine, start(the_engine, seed=seed))
        run = start(the_engine, draft, seed=seed)
        assert text(the_engine, run) == plain
        assert run.drafts.accepted <= run.drafts.drafted
    rejecting = start(the_engine, draft, seed=3, verification="rejection")
    assert text(the_engine, rejecting)
    return rejecting
