"""The token tree as text: a trunk that leads to the best candidate, and branches where they leave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from treille.trace.events import TracedNode
    from treille.trace.trace import Trace

_VISIBLE = str.maketrans({"\n": "↵", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True, slots=True)
class Chain:
    """Nodes that follow each other without a fork, and the chains below them, the trunk's last."""

    nodes: tuple[TracedNode, ...]
    below: tuple[Chain, ...]


def chains(trace: Trace, *, dropped: bool = True) -> Chain:
    """The tree of `trace` with nodes joined where nothing forks, ends or starts to be dropped."""
    kept = {number for candidate in trace.candidates for number in trace.path(candidate)} | {0}
    best = set(trace.path(trace.candidates[0])) if trace.candidates else set()
    children: list[list[int]] = [[] for _ in trace.nodes]
    size = [1] * len(trace.nodes)
    for node in reversed(trace.nodes):  # children have larger numbers than their parents
        if node.parent is not None and (dropped or node.number in kept):
            children[node.parent].append(node.number)
            size[node.parent] += size[node.number]
    for below in children:  # what leads to the best text last, else the largest branch
        below.sort(key=lambda number: (number in best, number in kept, size[number], -number))
    return _chain(trace, children, kept)


def _chain(trace: Trace, children: Sequence[Sequence[int]], kept: set[int]) -> Chain:
    """The chains of the whole tree; built from the last node to the first, as a deep tree would exhaust the stack."""
    ends = set(trace.candidates)
    built: dict[int, Chain] = {}
    for node in reversed(trace.nodes):
        number, below = node.number, children[node.number]
        same = len(below) == 1 and number not in ends and number != 0 and (number in kept) == (below[0] in kept)
        if same:
            rest = built.pop(below[0])
            built[number] = Chain((node, *rest.nodes), rest.below)
        else:
            built[number] = Chain((node,), tuple([built.pop(child) for child in below]))
    return built[0]


def draw(trace: Trace, width: int, *, dropped: bool = True) -> str:
    """See `Trace.text`."""
    root = chains(trace, dropped=dropped)
    # Steps are counted from 1 for people, as on the page.
    dropped_at = trace.first_steps("dropped").items()
    gone = {number: "end" if step == trace.steps else f"{step + 1}" for number, step in dropped_at}
    rank = {number: place for place, number in reversed(list(enumerate(trace.candidates, 1)))}
    totals = next((event.values for event in trace.events if event.kind == "finished"), ())
    lines = [f"{trace.strategy}: {trace.steps} steps, {len(trace.nodes)} nodes, {trace.status}"]
    # What is still to be drawn, the next one last: chain, prefix of its first line, prefix of what follows it.
    stack = [(root, "┌ ", "")]
    while stack:
        chain, first, prefix = stack.pop()
        follow = f"{prefix}│ " if chain.below else prefix + " " * (len(first) - len(prefix))
        note = _note(chain, rank, totals, gone)
        short = chain.nodes[-1].number in gone or chain.nodes[0].parent is None
        lines.extend(_lines(_text(trace, chain), note, first, follow, width, short=short))
        *sides, trunk = chain.below or (None,)
        if trunk is not None:
            stack.append((trunk, f"{prefix}{'│' if trunk.below else '└'} ", prefix))
        stack.extend((side, f"{prefix}├─ ", f"{prefix}│  ") for side in reversed(sides) if side is not None)
    return "\n".join(lines)


def _text(trace: Trace, chain: Chain) -> str:
    if trace.nodes[0].text:
        text = "".join(node.text for node in chain.nodes)
    else:
        text = " ".join(str(token) for node in chain.nodes for token in node.tokens)
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text.translate(_VISIBLE))
    return text if text.strip(" ↵") else text.replace(" ", "·")


def _note(chain: Chain, rank: dict[int, int], totals: Sequence[float], gone: dict[int, str]) -> str:
    """What stands at the right of a chain: log-probability, place among the candidates, when it was dropped."""
    last = chain.nodes[-1].number
    if chain.nodes[0].parent is None:
        count = len(chain.nodes[0].tokens)
        return f"prompt, {count} token{'s' if count > 1 else ''}"
    logprobs = [node.logprob for node in chain.nodes if node.logprob is not None]
    parts = [f"{sum(logprobs):.2f}"] if logprobs else []
    if last in rank:
        parts.append(f"◆ {rank[last]} ({totals[rank[last] - 1]:.2f})")
    elif last in gone:
        parts.append(f"✗ {gone[last]}")
    return " ".join(parts)


def _lines(text: str, note: str, first: str, follow: str, width: int, *, short: bool) -> Iterator[str]:
    """`text` in columns left of `note`; if `short` on one line, its beginning and end."""
    room = max(12, width - max(cell_len(first), cell_len(follow)) - max(18, cell_len(note) + 2))
    pieces = list(_pieces(text, room)) or [""]
    if short and len(pieces) > 1:
        head, tail = text[: room // 2 - 1], text[-(room - room // 2 - 2) :]
        pieces = [set_cell_size(f"{head} … {tail}", room)]
    yield f"{first}{set_cell_size(pieces[0], room)}  {note}".rstrip()
    for piece in pieces[1:]:
        yield f"{follow}{piece}".rstrip()


def _pieces(text: str, room: int) -> Iterator[str]:
    """`text` cut into pieces of at most `room` columns."""
    piece, used = "", 0
    for character in text:
        columns = cell_len(character)
        if used + columns > room:
            yield piece
            piece, used = "", 0
        piece += character
        used += columns
    if piece:
        yield piece
