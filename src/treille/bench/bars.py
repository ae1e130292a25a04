"""Bar charts as SVG: small multiples with one reference line, and groups of shares with their intervals."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, TypeAlias

from treille.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WIDTH, LABEL, BAR, GAP, HEAD = 420, 150, 14, 4, 34  # pixels
SVG = "http://www.w3.org/2000/svg"
ABOVE, BELOW = "#2a7f62", "#b0532c"
WIDE, NAMES = 560, 190  # pixels of the bars of shares, and of the names of their groups
# Distinct also for readers who see fewer colours (Okabe and Ito 2008).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#f0e442")

Share: TypeAlias = tuple[float, float, float]  # a share and its interval's ends, 0 to 1


def bars(title: str, panels: Mapping[str, Sequence[tuple[str, float]]], *, reference: float) -> str:
    """An SVG document with one panel per entry of `panels`, its bars longest first.

    Args:
        title: above everything.
        panels: per panel, labels and values (not negative).
        reference: value at which a line is drawn; bars below it have another colour.
    """
    most = max((value for entries in panels.values() for _, value in entries), default=reference) or 1.0
    scale = (WIDTH - LABEL - 50) / max(most, reference)
    columns = 2 if len(panels) > 1 else 1
    tops = [HEAD] * columns
    parts: list[str] = []
    for panel, entries in panels.items():
        column = tops.index(min(tops))
        parts += _panel(panel, entries, column * WIDTH, tops[column], scale, reference)
        tops[column] += HEAD + len(entries) * (BAR + GAP)
    return _document(title, columns * WIDTH + 10, max(tops) + 10, parts)


def save(file: Path, svg: str) -> None:
    """Write a picture, in a new folder if need be.

    Raises:
        ParameterError: it cannot be written there.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(svg, encoding="utf-8")
    except OSError as error:
        raise ParameterError(f"--picture={file}: cannot be written ({error.strerror}); give another file") from None


def _document(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="{SVG}" width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<text x="8" y="18" font-size="13" font-weight="bold">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def _panel(
    name: str, entries: Sequence[tuple[str, float]], left: int, top: int, scale: float, reference: float
) -> list[str]:
    line = left + LABEL + reference * scale
    bottom = top + 20 + len(entries) * (BAR + GAP)
    parts = [f'<text x="{left + 8}" y="{top + 14}" font-weight="bold">{escape(name)}</text>']
    for place, (label, value) in enumerate(sorted(entries, key=lambda entry: -entry[1])):
        y = top + 20 + place * (BAR + GAP)
        colour = ABOVE if value >= reference else BELOW
        parts += [
            f'<text x="{left + LABEL - 6}" y="{y + 11}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{left + LABEL}" y="{y}" width="{value * scale:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{left + LABEL + value * scale + 4:.1f}" y="{y + 11}">{value:.2f}</text>',
        ]
    parts.append(f'<path d="M{line:.1f} {top + 18}V{bottom}" stroke="#444" stroke-dasharray="3 2"/>')
    return parts


def grouped(title: str, groups: Mapping[str, Mapping[str, Share]]) -> str:
    """An SVG document with one group of bars per entry of `groups`, on an axis from 0 to 100 %.

    Args:
        title: above everything.
        groups: per group, shares by label, drawn in this order; a label has one colour in all groups.
    """
    labels = list(dict.fromkeys(label for group in groups.values() for label in group))
    colours = dict(zip(labels, _colours(len(labels)), strict=True))
    top = HEAD + len(labels) * (BAR + GAP)
    parts = [
        f'<rect x="{NAMES}" y="{HEAD + place * (BAR + GAP) - 6}" width="{BAR}" height="{BAR}" fill="{colours[label]}"/>'
        f'<text x="{NAMES + BAR + 6}" y="{HEAD + place * (BAR + GAP) + 5}">{escape(label)}</text>'
        for place, label in enumerate(labels)
    ]
    bottom = top + sum(len(group) * (BAR + GAP) + BAR for group in groups.values())
    for percent in range(0, 101, 25):
        x = NAMES + percent / 100 * WIDE
        parts += [
            f'<path d="M{x:.1f} {top}V{bottom}" stroke="#ddd"/>',
            f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{percent} %</text>',
        ]
    for name, group in groups.items():
        parts.append(f'<text x="{NAMES - 6}" y="{top + BAR + 2}" text-anchor="end">{escape(name)}</text>')
        for label, share in group.items():
            parts += _share(share, top + GAP, colours[label])
            top += BAR + GAP
        top += BAR
    return _document(title, NAMES + WIDE + 60, bottom + 24, parts)


def _colours(count: int) -> Sequence[str]:
    """So many different colours; more than there are names for differ in hue, neighbours also in lightness."""
    if count <= len(COLOURS):
        return COLOURS[:count]
    return [f"hsl({360 * place // count},65%,{38 + 20 * (place % 2)}%)" for place in range(count)]


def _share(share: Share, y: int, colour: str) -> list[str]:
    """A bar, its interval as a whisker, and its value behind both."""
    value, low, high = (NAMES + part * WIDE for part in share)
    ends = f"M{low:.1f} {y + 3}V{y + BAR - 3}M{high:.1f} {y + 3}V{y + BAR - 3}"
    return [
        f'<rect x="{NAMES}" y="{y}" width="{max(2.0, value - NAMES):.1f}" height="{BAR}" fill="{colour}"/>',
        f'<path d="M{low:.1f} {y + BAR // 2}H{high:.1f}{ends}" stroke="#222"/>',
        f'<text x="{high + 4:.1f}" y="{y + 11}">{100 * share[0]:.0f} %</text>',
    ]
