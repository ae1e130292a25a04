"""The loss curve of a run as an SVG picture."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 400, 56, 44, 40, 16
COLORS = {"training": "#9aa5b1", "python": "#2563eb", "tasks": "#d97706"}
SMOOTHING = 0.95  # of the training loss, whose batches differ in their mixture

Points = list[tuple[float, float]]


def series(log: Sequence[dict[str, Any]]) -> dict[str, Points]:
    """Curves of a log: the smoothed training loss, and each held-out loss of the last exit, over the steps."""
    curves: dict[str, Points] = {"training": []}
    mean = 0.0
    for count, row in enumerate(log, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * row["loss"]
        curves["training"].append((row["step"], mean / (1 - SMOOTHING**count)))
        for name, losses in row.get("held_out", {}).items():
            curves.setdefault(name, []).append((row["step"], losses[-1]))
    return curves


def draw(log: Sequence[dict[str, Any]], title: str) -> str:
    """The picture of a log: loss (nats per token) over optimizer steps."""
    curves = series(log)
    points = [point for curve in curves.values() for point in curve]
    last, top = max(x for x, _ in points), max(y for _, y in points)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / last * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - y / top * (HEIGHT - BOTTOM - TOP)

    parts = [_text(WIDTH / 2, 20, title, "middle", 15), *_axes(place, last, top)]
    for index, (name, curve) in enumerate(curves.items()):
        color = COLORS.get(name, "#444")
        line = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in curve)
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.6" points="{line}"/>')
        label = name if name == "training" else f"held out: {name}"
        parts.append(_text(WIDTH - RIGHT - 8, TOP + 16 + 18 * index, label, "end", 13, color))
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _axes(place: Any, last: float, top: float) -> Iterable[str]:
    """Grid lines with their numbers, four in each direction, and the names of the axes."""
    for quarter in range(5):
        x, y = place(last * quarter / 4, top * quarter / 4)
        yield f'<path d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>'
        yield _text(LEFT - 8, y + 4, f"{top * quarter / 4:.1f}", "end", 12)
        yield _text(x, HEIGHT - BOTTOM + 18, f"{last * quarter / 4:,.0f}", "middle", 12)
    yield _text((LEFT + WIDTH) / 2, HEIGHT - 8, "optimizer steps; loss in nats per token", "middle", 12)


def _text(x: float, y: float, text: str, anchor: str, size: int, color: str = "#374151") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{color}">{escape(text)}</text>'
