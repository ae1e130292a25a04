"""What a trace is made of: the nodes of a run's token tree and the events that happened to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "prompt", "drafted", "computed", "proposed", "accepted", "rejected", "dropped", "scored", "preempted", "finished"
]
Status: TypeAlias = Literal["running", "finished", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class TracedNode:
    """A node of the token tree.

    Attributes:
        number: its name in the trace; parents have smaller numbers than their children, the prompt is 0.
        parent: number of the node above, None for the prompt.
        tokens: its own tokens.
        text: what these tokens add to the text of the path; empty without a tokenizer.
        logprob: log-probability (nats) of its token under p, None where no readout told it.
    """

    number: int
    parent: int | None
    tokens: tuple[int, ...]
    text: str
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run.

    ===========  ===================  ============================  ===============================
    kind         nodes                tokens                        values
    ===========  ===================  ============================  ===============================
    `prompt`     the prompt's node    its tokens
    `drafted`    the new node         its tokens
    `computed`   nodes that have KV
    `proposed`   the node above       what a readout offered        log-probabilities (nats), p
    `accepted`   the new node         its tokens                    log-probability, where known
    ”            drafted nodes kept
    `rejected`   the node above       offers or drafts not taken    log-probabilities (nats), p, of offers
    `dropped`    unreachable nodes
    `scored`     nodes                                              the scorer's values
    `preempted`
    `finished`   the returned nodes                                 log-probabilities of the texts
    ===========  ===================  ============================  ===============================

    Attributes:
        step: number of the run's forward, 0-based; what a strategy does between two forwards belongs to the later one.
        kind: see the table.
        nodes: numbers of nodes.
        tokens: token ids.
        values: numbers, one per token or node.
    """

    step: int
    kind: Kind
    nodes: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
