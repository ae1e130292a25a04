"""The page that replays a run: the recorded data put into `viewer.html`."""

from __future__ import annotations

import html
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from treille.trace.draw import chains

if TYPE_CHECKING:
    from treille.trace.draw import Chain
    from treille.trace.trace import Trace


def page(trace: Trace) -> str:
    """One HTML file without any reference to other files or to the network."""
    template = resources.files("treille.trace").joinpath("viewer.html").read_text(encoding="utf-8")
    # Inside a script element only `</` (and `<!--`) could end the data early.
    data = json.dumps(_data(trace), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return template.replace("{{title}}", html.escape(trace.strategy)).replace("{{data}}", data)


def _data(trace: Trace) -> dict[str, Any]:
    """What the page's script reads; see the head of the script in `viewer.html`."""
    computed, accepted = trace.first_steps("computed"), trace.first_steps("accepted")
    dropped = trace.first_steps("dropped")
    offers: list[dict[int, float]] = [{} for _ in trace.nodes]
    for event in trace.of_kind("proposed"):
        offers[event.nodes[0]].update(zip(event.tokens, event.values, strict=True))
    scores: list[list[float]] = [[] for _ in trace.nodes]
    for event in trace.of_kind("scored"):
        for number, value in zip(event.nodes, event.values, strict=True):
            scores[number].append(value)
    finished = next((event.values for event in trace.events if event.kind == "finished"), ())
    return {
        "strategy": trace.strategy,
        "status": trace.status,
        "steps": trace.steps,
        "nodes": [
            {
                "parent": node.parent,
                "tokens": node.tokens if node.parent is not None else node.tokens[-1:],
                "count": len(node.tokens),
                "text": node.text,
                "logprob": node.logprob,
                "from": computed.get(node.number, accepted.get(node.number, 0)),
                "computed": node.number in computed,
                "until": dropped.get(node.number),
                "offers": sorted(offers[node.number].items(), key=lambda offer: -offer[1]),
                "scores": scores[node.number],
            }
            for node in trace.nodes
        ],
        "chains": _flat(chains(trace)),
        "candidates": list(zip(trace.candidates, finished, strict=True)) if finished else [],
        "preempted": [event.step for event in trace.of_kind("preempted")],
        "texts": {str(token): text for token, text in trace.token_texts.items()},
    }


def _flat(root: Chain) -> list[dict[str, list[int]]]:
    """The chains in a list, the root first: `nodes`, and `below` as indices into the list."""
    order, index = [root], 0
    links: list[list[int]] = []
    while index < len(order):
        links.append(list(range(len(order), len(order) + len(order[index].below))))
        order.extend(order[index].below)
        index += 1
    return [{"nodes": [n.number for n in c.nodes], "below": below} for c, below in zip(order, links, strict=True)]
