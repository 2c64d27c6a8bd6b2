"""The marks: what is to be reached, as ratios wherever there is something to compare with, and whether it was.

Rules: pure; a mark that could not be measured says so and is neither reached nor missed.
Does not belong here: how it is shown (see `report`).
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.figures import Ratio, Series, chunks, number, percentile, ratio
from bench.results import Results, Size


@dataclass(frozen=True)
class Mark:
    """One line of the table: what, how much at most (or at least), how much it was."""

    group: str
    what: str
    limit: float
    found: Ratio | None
    unit: str = "x"
    at_least: bool = False
    reason: str = ""
    """Why nothing was found."""

    @property
    def reached(self) -> bool | None:
        """None where it could not be measured."""
        if self.found is None:
            return None
        return self._holds(self.found.value)

    @property
    def verdict(self) -> str:
        """Reached, or missed by how much of the limit."""
        if self.found is None:
            return f"not measured: {self.reason}"
        best, worst = self.found.least, self.found.most
        if self.at_least:
            best, worst = worst, best
        if self.reached:
            return "reached" if self._holds(worst) else "reached, but not in every turn"
        missed = abs(self.found.value / self.limit - 1)
        sometimes = ", but not in every turn" if self._holds(best) else ""
        return f"missed by {number(100 * missed)} %{sometimes}"

    def _holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def p95(values: Sequence[float]) -> float:
    """The 95th percentile."""
    return percentile(values, 0.95)


def difference(one: Series, other: Series) -> Ratio:
    """The median of ``one`` less ``other``, turn by turn; with its middle half."""
    less = [
        statistics.median(ours) - statistics.median(theirs)
        for ours, theirs in zip(one.turns, other.turns, strict=False)
    ]
    return Ratio(statistics.median(less), percentile(less, 0.25), percentile(less, 0.75))


def marks(results: Results) -> list[Mark]:
    """All marks, in the order of the report."""
    return [
        *_single(results),
        *_sustained(results),
        *_suites(results),
        *_scale(results),
        *_coming_and_going(results),
        *_stepping(results),
        *_start_up(results),
    ]


NETWARREN, FLOOR, COMMANDS, MININET = "netwarren", "floor (C)", "ip commands", "Mininet"


def _single(results: Results) -> list[Mark]:
    group = "1. One node and three pods"
    found = []
    for what, kept, name, limit, at_least in (
        ("ready for traffic, of the floor", results.single, FLOOR, 1.5, False),
        ("ready for traffic after a pause, of the floor", results.paused, FLOOR, 1.5, False),
        ("the `ip` commands take, of netwarren", results.single, COMMANDS, 25, True),
    ):
        ours, other = kept.get(NETWARREN), kept.get(name)
        if ours and other and ours.ready and other.ready:
            pair = (other.ready, ours.ready) if at_least else (ours.ready, other.ready)
            found.append(Mark(group, what, limit, ratio(*pair), at_least=at_least))
        else:
            reason = other.skipped if other else "left out"
            found.append(Mark(group, what, limit, None, at_least=at_least, reason=reason))
    return found


def _sustained(results: Results) -> list[Mark]:
    ours, floor = results.sustained.get(NETWARREN), results.sustained.get(FLOOR)
    if not (ours and ours.whole):
        return []
    count = len(ours.whole.turns[0]) + 1
    group = f"2. {count:,} of them in one process"
    mean = statistics.fmean
    found = [
        Mark(group, "mean, closing included, of the floor's mean", 2, ratio(ours.whole, floor.whole, mean))
        if floor and floor.whole
        else Mark(
            group,
            "mean, closing included, of the floor's mean",
            2,
            None,
            reason=floor.skipped if floor else "",
        )
    ]
    own = [p95(turn) / mean(turn) for turn in ours.whole.turns]
    found.append(Mark(group, "p95 of our mean", 2, Ratio(mean(own), min(own), max(own))))
    halves = [[mean(half) for half in chunks(turn, 2)] for turn in ours.whole.turns]
    slower = [second / first for first, second in halves]
    found.append(
        Mark(
            group, "mean of the second half, of the first", 1.1, Ratio(mean(slower), min(slower), max(slower))
        )
    )
    for what, name, limit in (
        ("memory at the end, of that after a fifth", "memory_kb", 1.02),
        ("descriptors at the end, of those after a fifth", "descriptors", 1.05),
        ("threads at the end, of those after a fifth", "threads", 1.0),
    ):
        grown = [turn[-1][name] / turn[len(turn) // 5][name] for turn in results.held if turn]
        if grown:
            found.append(Mark(group, what, limit, Ratio(mean(grown), min(grown), max(grown))))
    return found


def _suites(results: Results) -> list[Mark]:
    by_name = {suite.name: suite for suite in results.suites}
    alone = by_name.get("one process")
    if alone is None or not alone.rate:
        return []
    group = f"2. A suite of {len(alone.tests_ms.turns[0]):,} tests of pytest"
    floor = results.sustained.get(FLOOR)
    what = "mean of a test, pytest included, of the floor's mean"
    mean = statistics.fmean
    return [
        Mark(group, what, 2, ratio(alone.tests_ms, floor.whole, mean))
        if floor and floor.whole
        else Mark(group, what, 2, None, reason=floor.skipped if floor else "left out"),
        *(
            Mark(
                group,
                f"tests in a second with `{name}`, of one process",
                1,
                ratio(suite.rate, alone.rate),
                at_least=True,
            )
            for name, suite in by_name.items()
            if name.startswith("-n")
        ),
    ]


def _scale(results: Results) -> list[Mark]:
    ours = [size for size in results.scale.get(NETWARREN, ()) if size.ready]
    if not ours:
        return []
    floor = {size.pods: size for size in results.scale.get(FLOOR, ()) if size.ready}
    judged = judged_size(ours)
    group = f"3. {judged.pods:,} pods on {results.nodes} nodes"
    found = []
    if judged.pods in floor:
        found.append(Mark(group, "ready, of the floor", 2, ratio(judged.ready, floor[judged.pods].ready)))
    else:
        found.append(Mark(group, "ready, of the floor", 2, None, reason="the floor could not be run"))
    if judged is not ours[0]:
        each, least = _each(judged), _each(ours[0])
        found.append(Mark(group, f"cost of a pod, of that with {ours[0].pods}", 1.3, ratio(each, least)))
    arrived = judged.arrived / judged.sent if judged.sent else 0.0
    found.append(
        Mark(group, "packets between pods that arrive", 1, Ratio(arrived, arrived, arrived), at_least=True)
    )
    own = Ratio(statistics.median(judged.own_kb), min(judged.own_kb), max(judged.own_kb))
    found.append(Mark(group, "memory of our process for a pod", 30, own, unit="kB"))
    largest = ours[-1]
    if largest.pods >= 5000:
        found.append(
            Mark(
                group,
                "pods in the largest cluster",
                5000,
                Ratio(largest.pods, largest.pods, largest.pods),
                "",
                True,
            )
        )
    else:
        found.append(
            Mark(group, "pods in the largest cluster", 5000, None, "", True, "`make bench ARGS=--large` does")
        )
    return found


def judged_size(sizes: Sequence[Size]) -> Size:
    """The one that the marks name, or else the last."""
    return next((size for size in sizes if size.pods == 1000), sizes[-1])


def _each(size: Size) -> Series:
    return Series([[value / size.pods for value in turn] for turn in size.of_pods.turns])


def _coming_and_going(results: Results) -> list[Mark]:
    ours = [size for size in results.scale.get(NETWARREN, ()) if size.add]
    if not ours:
        return []
    floor = {size.pods: size for size in results.scale.get(FLOOR, ()) if size.add}
    judged = judged_size(ours)
    group = f"4. One pod more or less among {judged.pods:,}"
    found = []
    kinds: tuple[tuple[str, Callable[[Size], Series]], ...] = (
        ("adding", lambda size: size.add),
        ("removing", lambda size: size.remove),
        ("adding and removing", _both),
    )
    for what, of in kinds:
        if judged.pods in floor:
            found.append(
                Mark(group, f"{what} one, of the floor", 2, ratio(of(judged), of(floor[judged.pods])))
            )
        else:
            found.append(
                Mark(group, f"{what} one, of the floor", 2, None, reason="the floor could not be run")
            )
    if judged is not ours[0]:
        found.append(
            Mark(group, f"adding one, of adding one to {ours[0].pods}", 1.1, ratio(judged.add, ours[0].add))
        )
    return found


def _both(size: Size) -> Series:
    return Series(
        [
            [add + remove for add, remove in zip(added, removed, strict=True)]
            for added, removed in zip(size.add.turns, size.remove.turns, strict=True)
        ]
    )


def _stepping(results: Results) -> list[Mark]:
    found = results.stepping
    if "with_us" not in found:
        return []
    group = "5. Stepping"
    nothing = found["call_us"]
    return [
        Mark(group, "`with pod:`, over a call", 5, difference(found["with_us"], nothing), "µs"),
        Mark(
            group,
            "a step of a task in a pod, over a plain one",
            5,
            difference(found["pod_task_us"], found["plain_task_us"]),
            "µs",
        ),
        Mark(group, "`pod.run` of an empty function", 10, difference(found["run_us"], nothing), "µs"),
        Mark(
            group,
            "`pod.socket()`, of a plain socket",
            3,
            ratio(found["pod_socket_us"], found["plain_socket_us"]),
        ),
    ]


def _start_up(results: Results) -> list[Mark]:
    found = results.start_up
    if not found:
        return []
    group = "6. Start-up"
    return [
        Mark(
            group,
            "`import netwarren`, over a bare interpreter",
            25,
            difference(found["import netwarren"], found["python"]),
            "ms",
        ),
        Mark(
            group,
            "the plugin in a session that does not use it, over bare pytest",
            10,
            difference(found["pytest with the plugin, unused"], found["pytest"]),
            "ms",
        ),
        Mark(
            group,
            "the first cluster of a session, over bare pytest",
            60,
            difference(found["pytest with a first cluster"], found["pytest"]),
            "ms",
        ),
    ]
