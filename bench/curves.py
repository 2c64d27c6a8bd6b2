"""The report's curves: how times and what the process holds grow.

Rules: pure: results in, charts out.
Does not belong here: how a chart is drawn (see `svg`).
"""

from collections.abc import Iterable

from bench.figures import Series, running_mean
from bench.results import Results, Size
from bench.svg import Axis, Curve, chart

Texts = dict[str, str]
"""By file names."""


def curves(results: Results) -> Texts:
    """The charts, by their files' names; none of what was not measured."""
    drawn: Texts = {}
    whole = {name: built.whole for name, built in results.sustained.items() if built.whole}
    if whole:
        drawn["benchmarks-sustained.svg"] = chart(
            "A cluster made and closed, over the run (means of 25)",
            Axis("clusters before it, in the same process"),
            Axis("ms"),
            [Curve(name, running_mean(series.turns[-1], 25)) for name, series in whole.items()],
        )
    held = [turn for turn in results.held if len(turn) > 1]
    if held:
        drawn["benchmarks-memory.svg"] = chart(
            "What the process holds, over the run",
            Axis("clusters before it, in the same process"),
            Axis("MB; descriptors; threads"),
            [
                Curve("memory, MB", [(at["clusters"], at["memory_kb"] / 1024) for at in held[-1]]),
                Curve("descriptors", [(at["clusters"], at["descriptors"]) for at in held[-1]]),
                Curve("threads", [(at["clusters"], at["threads"]) for at in held[-1]]),
            ],
        )
    scale = {name: [size for size in sizes if size.ready] for name, sizes in results.scale.items()}
    if any(scale.values()):
        drawn["benchmarks-scale.svg"] = chart(
            f"Until a cluster of {results.nodes} nodes is ready",
            Axis("pods", logarithmic=True),
            Axis("ms", logarithmic=True),
            [
                Curve(name, [(size.pods, size.ready.summary.median) for size in by_pods(sizes)])
                for name, sizes in scale.items()
            ],
        )
        drawn["benchmarks-adding.svg"] = chart(
            "One pod more, one pod less",
            Axis("pods that are there", logarithmic=True),
            Axis("ms", logarithmic=True),
            [
                Curve(
                    f"{verb}: {name}", [(size.pods, median(of(size))) for size in by_pods(sizes) if of(size)]
                )
                for verb, of in (("adding", _adding), ("removing", _removing))
                for name, sizes in scale.items()
            ],
        )
    return drawn


def by_pods(sizes: Iterable[Size]) -> list[Size]:
    """The smallest first."""
    return sorted(sizes, key=lambda size: size.pods)


def median(series: Series) -> float:
    """Of all turns together."""
    return series.summary.median


def _adding(size: Size) -> Series:
    return size.add


def _removing(size: Size) -> Series:
    return size.remove
