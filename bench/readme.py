"""What the README says of a run: a few ratios, between two comments that each run finds again.

Rules: pure; no times, and netwarren is 1 throughout.
Does not belong here: the report itself (see `report`).
"""

import statistics
from collections.abc import Iterable, Mapping

from bench.curves import by_pods
from bench.figures import Series, number, ratio
from bench.marks import COMMANDS, FLOOR, MININET, NETWARREN, judged_size
from bench.report import table
from bench.results import Results, Size

BEGIN, END = "<!-- figures of make bench -->", "<!-- end of the figures -->"


def summary(results: Results) -> list[str]:
    """The few lines that the README has of it: ratios alone, and netwarren is 1 in all of them."""
    names = (FLOOR, COMMANDS, MININET)
    rows = []
    for what, ours, others in _compared(results):
        times = (others.get(name) for name in names)
        rows.append([what, "1", *(number(ratio(other, ours).value) if other else "" for other in times)])
    lines = table(["How long it takes", "netwarren", "the floor (C)", "`ip` commands", "Mininet"], rows)
    start = results.start_up
    if start:
        unused, first = (
            100 * (statistics.median(start[name].values) / statistics.median(start["pytest"].values) - 1)
            for name in ("pytest with the plugin, unused", "pytest with a first cluster")
        )
        lines += [
            f"A pytest session that uses no cluster takes {unused:.0f} % longer with the plugin than without, and one with a "
            f"first cluster {first:.0f} %.",
            "",
        ]
    return lines


def _compared(results: Results) -> Iterable[tuple[str, Series, Mapping[str, Series]]]:
    for what, kept in (
        ("one node and three pods, ready for traffic", results.single),
        (f"the same, {number(results.pause)} ms after the last one", results.paused),
    ):
        if NETWARREN in kept:
            yield what, kept[NETWARREN].ready, {name: built.ready for name, built in kept.items()}
    sustained = {name: built.whole for name, built in results.sustained.items() if built.whole}
    if NETWARREN in sustained:
        means = {
            name: Series([[statistics.fmean(turn)] for turn in series.turns])
            for name, series in sustained.items()
        }
        count = len(sustained[NETWARREN].turns[0]) + 1
        what = f"made and closed, {count:,} times one after the other in one process, on average"
        yield what, means[NETWARREN], means
    sizes = by_pods(size for size in results.scale.get(NETWARREN, ()) if size.ready)
    for size in [judged_size(sizes)] if sizes else []:
        others = {
            name: next((other for other in kept if other.pods == size.pods), Size(size.pods))
            for name, kept in results.scale.items()
        }
        yield (
            f"{size.pods:,} pods on {results.nodes} nodes",
            size.ready,
            {name: other.ready for name, other in others.items()},
        )
        yield "one pod more among those", size.add, {name: other.add for name, other in others.items()}


def between_marks(page: str, text: str) -> str:
    """``page`` with ``text`` in place of what stands between its two comments. Raises ValueError without them."""
    before, first, rest = page.partition(BEGIN)
    _old, last, after = rest.partition(END)
    if not (first and last):
        raise ValueError(f"README.md has lost its comments {BEGIN} and {END}, between which the figures go")
    return f"{before}{BEGIN}\n{text.strip()}\n{END}{after}"
