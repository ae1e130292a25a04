"""A recorded run: its tree, its events, and the ways to look at them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treille.errors import ParameterError
from treille.trace.draw import draw
from treille.trace.page import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from treille.trace.events import Event, Status, TracedNode


@dataclass(frozen=True, slots=True)
class Trace:
    """Every event of one run.

    `print(trace)` draws the token tree, `trace.save("run.html")` writes a page that replays it step by step.

    Attributes:
        strategy: the strategy with its parameters, as text.
        status: `running`, `finished`, `failed` or `cancelled`.
        nodes: every node that was computed, scored or returned, by its number.
        events: in the order in which they happened.
        candidates: numbers of the last nodes of the returned texts, best first.
        token_texts: text of every token in the events, by id; empty for special tokens and without a tokenizer.
    """

    strategy: str
    status: Status
    nodes: tuple[TracedNode, ...]
    events: tuple[Event, ...]
    candidates: tuple[int, ...]
    token_texts: Mapping[int, str]

    @property
    def steps(self) -> int:
        """Number of forwards that this run took part in."""
        return self.events[-1].step if self.status != "running" else self.events[-1].step + 1

    def of_kind(self, kind: str) -> list[Event]:
        """The events of one kind, e.g. `"proposed"`, in order."""
        return [event for event in self.events if event.kind == kind]

    def first_steps(self, kind: str) -> dict[int, int]:
        """Per node that an event of `kind` names, the step of the first one."""
        steps: dict[int, int] = {}
        for event in self.of_kind(kind):
            for number in event.nodes:
                steps.setdefault(number, event.step)
        return steps

    def path(self, number: int) -> list[int]:
        """Numbers of the nodes from the prompt to node `number`."""
        line: list[int] = []
        above: int | None = number
        while above is not None:
            line.append(above)
            above = self.nodes[above].parent
        return line[::-1]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values that JSON can hold."""
        return {
            "strategy": self.strategy,
            "status": self.status,
            "steps": self.steps,
            "nodes": [asdict(node) for node in self.nodes],
            "events": [asdict(event) for event in self.events],
            "candidates": list(self.candidates),
            "token_texts": {str(token): text for token, text in self.token_texts.items()},
        }

    def text(self, width: int = 100, *, dropped: bool = True) -> str:
        """The token tree as text, `width` columns wide.

        The line that leads to the best text runs down at the left; branches hang where they leave it. Nodes without a
        fork are joined. Numbers are log-probabilities (nats) of the tokens shown; `◆ n` marks the n-th best text,
        `✗ n` what was dropped before the n-th forward.

        Args:
            width: columns, at least 40.
            dropped: show the branches that were dropped.
        """
        if width < 40:
            raise ParameterError(f"width={width}: the tree needs at least 40 columns")
        return draw(self, width, dropped=dropped)

    def html(self) -> str:
        """One self-contained HTML page that replays the run step by step."""
        return page(self)

    def save(self, path: str | Path) -> None:
        """Write the trace to a file: `.html` the page, `.json` the events, `.txt` the drawn tree.

        Raises:
            ParameterError: another ending.
        """
        check_path(path)
        match Path(path).suffix:
            case ".html":
                content = self.html()
            case ".json":
                content = json.dumps(self.to_dict())
            case _:
                content = self.text() + "\n"
        Path(path).write_text(content, encoding="utf-8")

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return (
            f"Trace({self.strategy}, {self.status}: {self.steps} steps, {len(self.nodes)} nodes, "
            f"{len(self.events)} events, {len(self.candidates)} candidates)"
        )


def check_path(path: str | Path) -> None:
    """Refuse a file name that `Trace.save` could not write, before anything is computed.

    Raises:
        ParameterError: an unknown ending, or no such directory.
    """
    if Path(path).suffix not in {".html", ".json", ".txt"}:
        raise ParameterError(f"trace={str(path)!r}: the file name must end in .html, .json or .txt")
    if not Path(path).resolve().parent.is_dir():
        raise ParameterError(f"trace={str(path)!r}: there is no such directory; create it first")
