"""Figures out of many times: medians, 95th percentiles, and ratios with their spread.

Rules: pure; a ratio is that of two things that took turns on the same machine, and carries how much it changed
from one turn to the next.
Does not belong here: what is measured, in which unit, what a ratio should be.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Summary:
    """What is kept of a number of values, in their unit."""

    count: int
    mean: float
    median: float
    p95: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Summary":
        """Raises ValueError where there are no values."""
        if not values:
            raise ValueError("nothing was measured, and there is no median of nothing")
        return cls(
            len(values),
            statistics.fmean(values),
            statistics.median(values),
            percentile(values, 0.95),
            min(values),
            max(values),
        )


def percentile(values: Sequence[float], share: float) -> float:
    """The least of ``values`` that is not less than ``share`` (0 to 1) of them: the "nearest rank"."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


@dataclass
class Series:
    """Values of one kind, kept by the turns in which they were measured."""

    turns: list[list[float]] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        """All of them, in the order in which they were measured."""
        return [value for turn in self.turns for value in turn]

    @property
    def summary(self) -> Summary:
        """Of all turns together."""
        return Summary.of(self.values)

    def __bool__(self) -> bool:
        return any(self.turns)


Statistic = Callable[[Sequence[float]], float]


@dataclass(frozen=True)
class Ratio:
    """How many times the other one: of all turns together, and the least and the most of a single turn."""

    value: float
    least: float
    most: float

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{number(self.value)}"
        return f"{number(self.value)} ({number(self.least)} to {number(self.most)})"


def ratio(one: Series, other: Series, statistic: Statistic = statistics.median) -> Ratio:
    """``one`` by ``other``; turns are compared with the turn of the other that they stood beside."""
    turns = [
        statistic(ours) / statistic(theirs)
        for ours, theirs in zip(one.turns, other.turns, strict=False)
        if ours and theirs
    ]
    value = statistic(one.values) / statistic(other.values)
    return Ratio(value, min([value, *turns]), max([value, *turns]))


def running_mean(values: Sequence[float], width: int) -> list[tuple[float, float]]:
    """A calm curve: for each ``width`` values after one another, the place of their middle and their mean."""
    return [
        (start + len(part) / 2, statistics.fmean(part))
        for start in range(0, len(values), width)
        if (part := values[start : start + width])
    ]


def number(value: float) -> str:
    """As many digits as a reader can use: three that mean something."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(places, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def summarised(tree: Any, shortest: int = 5) -> Any:
    """The same tree of dicts, lists and numbers, with a `Summary` for each list of ``shortest`` numbers or more."""
    if isinstance(tree, dict):
        return {key: summarised(value, shortest) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        if len(tree) >= shortest and all(isinstance(each, int | float) for each in tree):
            return {name: round(value, 4) for name, value in vars(Summary.of(tree)).items()}
        return [summarised(each, shortest) for each in tree]
    return round(tree, 4) if isinstance(tree, float) else tree


def chunks(values: Sequence[float], count: int) -> Iterator[Sequence[float]]:
    """``values`` in ``count`` parts of about the same length."""
    for part in range(count):
        yield values[part * len(values) // count : (part + 1) * len(values) // count]
