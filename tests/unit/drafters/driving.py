"""What tests of drafters share: tables, hosts, and drafters made by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from treille.drafters.base import ConfiguredDrafter, Drafter, DrafterInfo, Host, Observation
from treille.requests import Top
from treille.sampling.random import Random
from treille.strategy import Limits, Run
from treille.testing import TableModel
from treille.tree import Node

TARGET = TableModel.markov([["1/2", "3/10", "1/5"], ["1/5", "1/2", "3/10"], ["1/10", "3/10", "3/5"]])
"""The model of the method cards: the law depends on the last token only."""


@dataclass(frozen=True)
class Sizes:
    """What a drafter may ask about a model."""

    vocab_size: int
    layers: int = 0
    context_length: int = 1 << 20
    layer_access: bool = True


def host(vocab_size: int = 3, memory: dict[str, Any] | None = None) -> Host:
    """Where a drafter runs, without any model."""
    return Host(Sizes(vocab_size), Sizes, {} if memory is None else memory)


class Verifying:
    """A drafting that only says how drafts are verified."""

    def __init__(self, verification: str = "match", rows: int = 64) -> None:
        self.verification = verification
        self.rows = rows


def run(tokens: list[int], *, verification: str = "match", do_sample: bool = True, ends: tuple[int, ...] = ()) -> Run:
    """A run on a prompt, for a drafter that is asked by hand."""
    limits = Limits(64, frozenset(ends))
    return Run(Node.root(tokens), Random(0), limits, do_sample=do_sample, draft=Verifying(verification))


def text(*tokens: int) -> Observation:
    """A text that no draft was made for."""
    return Observation(np.array(tokens, np.int32), 0)


def top(*tokens: int) -> tuple[Top]:
    """The answer to `TopK` at a node."""
    logprobs = tuple(-1.0 - rank for rank in range(len(tokens)))
    return (Top(tokens, logprobs, logprobs),)


def as_draft(kind: type[Drafter], **arguments: Any) -> ConfiguredDrafter:
    """A drafter class that is not registered, as `draft=`."""
    return ConfiguredDrafter(DrafterInfo(kind.__name__, kind, "", "", ""), arguments)
