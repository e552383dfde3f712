"""Drawings for the cells of a page's tables, as inline SVG in the page's colours; the numbers stand beside them.

They are hidden from screen readers for that reason. Estimates are ``{value, low, high}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Estimate = Mapping[str, float]

WIDTH, MARGIN = 150, 8


@dataclass(frozen=True)
class Scale:
    """From values to places: ``low`` is at the left end, ``high`` at the right one."""

    low: float
    high: float
    width: int = WIDTH

    def at(self, value: float) -> float:
        return MARGIN + (value - self.low) * (self.width - 2 * MARGIN) / ((self.high - self.low) or 1)


def scale_of(estimates: Iterable[Estimate | None], *also: float, width: int = WIDTH) -> Scale:
    """One scale for all of them, so that cells of a column compare; ``also``: values that must be on it.

    >>> scale_of([{"value": 2, "low": 1, "high": 3}, None], 0)
    Scale(low=0, high=3, width=150)
    """
    values = [*also, *(estimate[bound] for estimate in estimates if estimate is not None for bound in ("low", "high"))]
    return Scale(min(values), max(values), width) if values else Scale(0, 1, width)


def whiskers(base: Estimate | None, tuned: Estimate | None) -> str:
    """Both values with their intervals on a scale of their own."""
    if base is None or tuned is None:
        return ""
    return stacked([base, tuned])


def stacked(estimates: Sequence[Estimate | None]) -> str:
    """One below the other on a scale of their own; the first is what the others are compared with."""
    scale = scale_of(estimates)
    drawn = [
        _whisker(scale, estimate, 9 + 12 * at, "tuned" if at else "base")
        for at, estimate in enumerate(estimates)
        if estimate is not None
    ]
    return _svg("whiskers", scale.width, 6 + 12 * len(estimates), drawn)


def forest(estimate: Estimate | None, scale: Scale, *, zero: float | None = 0.0) -> str:
    """A value with its interval on a scale that others have too; ``zero``: where a line says that nothing changed."""
    if estimate is None:
        return ""
    parts = []
    if zero is not None:
        x = scale.at(zero)
        parts.append(f'<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="22"/>')
    name = "tuned" if zero is None or estimate["low"] > zero else "worse" if estimate["high"] < zero else "unclear"
    return _svg("whiskers", scale.width, 22, [*parts, _whisker(scale, estimate, 11, name)])


def bar(estimate: Estimate | None, scale: Scale, name: str = "tuned") -> str:
    """A bar from zero to the value, with the interval drawn at its end."""
    if estimate is None:
        return ""
    left, right = sorted((scale.at(max(scale.low, 0.0)), scale.at(estimate["value"])))
    low, high = scale.at(estimate["low"]), scale.at(estimate["high"])
    return _svg(
        "bar", scale.width, 22,
        [
            f'<rect class="{name}" x="{left:.1f}" y="4" width="{right - left:.1f}" height="14" rx="2"/>',
            f'<path d="M{low:.1f} 11H{high:.1f}M{low:.1f} 7v8M{high:.1f} 7v8"/>' if high > low else "",
        ],
    )  # fmt: skip


def shares(parts: Sequence[tuple[str, float]], *, width: int = 480) -> str:
    """Parts of a whole (they add up to one) side by side: ``(class, share)``."""
    drawn, x = [], 0.0
    for name, share in parts:
        drawn.append(f'<rect class="{name}" x="{x:.1f}" y="0" width="{max(0.0, share * width - 1):.1f}" height="18"/>')
        x += share * width
    return _svg("shares", width, 18, drawn).replace("<svg ", '<svg preserveAspectRatio="none" ')


def _whisker(scale: Scale, estimate: Estimate, y: int, name: str) -> str:
    left, middle, right = (scale.at(estimate[bound]) for bound in ("low", "value", "high"))
    return (
        f'<g class="{name}"><line x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}"/>'
        f'<circle cx="{middle:.1f}" cy="{y}" r="4"/></g>'
    )


def _svg(kind: str, width: int, height: int, parts: Sequence[str]) -> str:
    head = f'<svg class="{kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
    return "".join([head, *parts, "</svg>"])
