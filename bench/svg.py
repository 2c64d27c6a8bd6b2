"""Curves as SVG, plain text that any browser draws; https://www.w3.org/TR/SVG11/.

Rules: pure: points in, text out, the same for the same points; readable on a light page and on a dark one.
Does not belong here: which curves there are (see `report`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.figures import number

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 50, 60
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")
GREY = "#888888"


@dataclass(frozen=True)
class Curve:
    """Points by increasing x, and what they are called."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """What it counts, and whether equal steps are equal factors."""

    title: str
    logarithmic: bool = False


@dataclass(frozen=True)
class _Scale:
    """From a value to a place between ``start`` and ``end``, and the values that get a line."""

    axis: Axis
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.axis.logarithmic:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.axis.logarithmic:
            exponents = range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)
            return [10.0**exponent for exponent in exponents]
        step = nice_step((self.high - self.low) / 6)
        first = math.ceil(self.low / step)
        return [count * step for count in range(first, math.floor(self.high / step + 1e-9) + 1)]


def chart(title: str, x: Axis, y: Axis, curves: Sequence[Curve]) -> str:
    """A chart of ``curves`` that have points; what is not above 0 is left out where an axis is logarithmic.

    Raises ValueError where no point is left.
    """
    kept = [
        Curve(curve.name, points)
        for curve in curves
        if (
            points := [
                (at, value)
                for at, value in curve.points
                if (at > 0 or not x.logarithmic) and (value > 0 or not y.logarithmic)
            ]
        )
    ]
    if not kept:
        raise ValueError(f"there is no point to draw in {title!r}")
    across = _scale(x, [at for curve in kept for at, _ in curve.points], LEFT, WIDTH - RIGHT)
    up = _scale(y, [value for curve in kept for _, value in curve.points], HEIGHT - BOTTOM, TOP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="{GREY}">',
        f"<title>{escape(title)}</title>",
        _text(LEFT, 20, title, size=15),
    ]
    for value in across.ticks():
        at = across.place(value)
        lines.append(_line(at, TOP, at, HEIGHT - BOTTOM))
        lines.append(_text(at, HEIGHT - BOTTOM + 16, number(value), "middle"))
    for value in up.ticks():
        at = up.place(value)
        lines.append(_line(LEFT, at, WIDTH - RIGHT, at))
        lines.append(_text(LEFT - 6, at + 4, number(value), "end"))
    lines.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 22, x.title, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    lines.append(f'<g transform="rotate(-90 18 {middle:.1f})">{_text(18, middle, y.title, "middle")}</g>')
    for place, curve in enumerate(kept):
        colour = COLOURS[place % len(COLOURS)]
        points = [(across.place(at), up.place(value)) for at, value in curve.points]
        path = " ".join(f"{at:.1f},{value:.1f}" for at, value in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(points) <= 20:
            lines += [
                f'<circle cx="{at:.1f}" cy="{value:.1f}" r="3" fill="{colour}"/>' for at, value in points
            ]
        lines.append(_text(LEFT + place * 150, 40, curve.name, colour=colour))
    return "\n".join([*lines, "</svg>", ""])


def nice_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not less than ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
    low, high = min(values), max(values)
    if axis.logarithmic:
        bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return _Scale(axis, 10.0**bottom, 10.0 ** max(top, bottom + 1), start, end)
    high = max(high, 0.0)
    low = min(low, 0.0)
    return _Scale(axis, low, high * 1.05 if high > low else low + 1, start, end)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GREY}" stroke-opacity="0.3"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12, colour: str = GREY) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
        f"{escape(text)}</text>"
    )
