"""The report: what one run found out, as a page of Markdown, curves, and JSON.

Rules: pure: results in, texts out; a bare time stands only beside what it is compared with; what could not be run
is said, with its reason.
Does not belong here: measuring (see `measure`), what is good enough (see `marks`).
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from bench.curves import Texts, curves
from bench.figures import number, ratio, summarised
from bench.machine import NOISY, in_a_word
from bench.marks import COMMANDS, FLOOR, NETWARREN, Mark, difference, marks
from bench.results import Built, Results, Size


def report(results: Results, tried: str = "") -> Texts:
    """``benchmarks.md``, ``benchmarks.json`` and the curves; ``tried`` is told at the end of the page."""
    drawn = curves(results)
    page = "\n".join(_page(results, tried, drawn)).strip() + "\n"
    tree = {**asdict(results), "marks": [_judged(mark) for mark in marks(results)]}
    data = json.dumps(summarised(tree), indent=1, ensure_ascii=False) + "\n"
    return {"benchmarks.md": page, "benchmarks.json": data, **drawn}


def marks_table(found: Sequence[Mark]) -> list[str]:
    """The marks and their verdicts, as a table of Markdown."""
    rows = []
    group = ""
    for mark in found:
        heading = mark.group if mark.group != group else ""
        group = mark.group
        bound = f"at {'least' if mark.at_least else 'most'} {number(mark.limit)} {mark.unit}".strip()
        value = f"{mark.found} {mark.unit}".strip() if mark.found else "-"
        verdict = mark.verdict if mark.reached is not False else f"**{mark.verdict}**"
        rows.append([heading, mark.what, bound, value, verdict])
    return table(["", "Mark", "To be", "Is", "Verdict"], rows)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of Markdown; what is in the first two columns is text, the rest is figures."""
    rules = ["---" if place < 2 else "---:" for place in range(len(headings))]
    return [_row(headings), _row(rules), *map(_row, rows), ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _judged(mark: Mark) -> Mapping[str, object]:
    return {**asdict(mark), "reached": mark.reached, "verdict": mark.verdict}


# --- the page ---


def _page(results: Results, tried: str, drawn: Texts) -> Iterable[str]:
    yield "# Benchmarks"
    yield ""
    yield (
        f"Written by `make bench` on {results.began}, from one run of {results.seconds / 60:.0f} minutes. What is compared "
        "took turns in it, so the ratios hold where the times do not: those are of this machine, on that day. In "
        "brackets: the least and the most of a single turn."
    )
    if results.quick:
        yield ""
        yield "**A run with `--quick`: it shows that all of it runs, and its figures mean nothing.**"
    yield ""
    yield from _machine(results)
    yield "## The marks"
    yield ""
    yield (
        "The floor is a C program, [floor.c](../bench/floor.c), that asks the kernel for the same things in the same "
        "order: namespaces, links, bridge, addresses, routes. Nothing that uses the kernel for this takes less."
    )
    yield ""
    yield from marks_table(marks(results))
    if results.skipped:
        yield "What could not be run:"
        yield ""
        yield from (f"- {each}" for each in results.skipped)
        yield ""
    yield from _single(results)
    yield from _sustained(results, drawn)
    yield from _where(results)
    yield from _suites(results)
    yield from _scale(results, drawn)
    yield from _stepping(results)
    yield from _start_up(results)
    yield from _others(results)
    if tried:
        yield tried.strip()


def _machine(results: Results) -> Iterable[str]:
    noise = results.noise
    yield from table(["The machine", ""], results.machine.items())
    if not noise:
        return
    loads = noise["loads"]
    spread = noise["spread"]
    yield (
        f"It was {in_a_word(spread)}: a fixed computation, between the parts of the run, took {number(spread)} times as long as its "
        f"fastest in its 95th percentile. The load was {loads[0]:.2f} before, {max(loads):.2f} at most and "
        f"{loads[-1]:.2f} at the end; other guests of the host took {number(100 * noise['stolen'])} % of a processor."
    )
    if spread >= NOISY:
        yield "**So these figures are for orientation: run it again when the machine has nothing else to do.**"
    yield ""


def _single(results: Results) -> Iterable[str]:
    yield "## One node and three pods"
    yield ""
    yield "A few at a time, in a process of their own; its first, which loads what is needed, is not counted."
    yield ""
    yield from _built(results.single)
    if any(built.ready for built in results.paused.values()):
        yield (
            f"And each of them {number(results.pause)} ms after the last one was closed, as in a suite whose tests do "
            "something. Meanwhile namespaces are made ahead:"
        )
        yield ""
        yield from _built(results.paused)
    yield "Mininet's network is a smaller one: three hosts on one bridge, without a node between them."
    yield ""


def _built(kept: Mapping[str, Built], processor: bool = False) -> Iterable[str]:
    ours = kept.get(NETWARREN)
    rows = []
    for name, built in kept.items():
        if not built.ready:
            rows.append([name, f"skipped: {built.skipped}", *[""] * (7 if processor else 5)])
            continue
        ready, whole = built.ready.summary, built.whole.summary
        times = str(ratio(built.ready, ours.ready)) if ours and ours.ready and built is not ours else "1"
        rows.append(
            [
                name,
                times,
                *(number(value) for value in (ready.median, ready.p95, whole.mean, whole.median, whole.p95)),
                *(number(value) for value in (built.user, built.system) if processor),
            ]
        )
    headings = ["", "Ready, of netwarren's median", "ready, ms: median", "p95"]
    headings += ["closed, ms: mean", "median", "p95"]
    yield from table([*headings, *(["computing", "in the kernel"] if processor else [])], rows)


def _sustained(results: Results, drawn: Texts) -> Iterable[str]:
    if not results.sustained:
        return
    yield "## Sustained"
    yield ""
    yield (
        "The same, one after the other in one process. Here the kernel's cleaning up of those that are closed, in the "
        "background, meets the making of new ones. The last two columns are processor time of all threads."
    )
    yield ""
    yield from _built(results.sustained, processor=True)
    yield from _picture(drawn, "benchmarks-sustained.svg", "Time of a cluster over the run")
    held = [turn for turn in results.held if len(turn) > 1]
    if held:
        rows = [
            [
                f"after {at['clusters']} clusters",
                *(str(at[name]) for name in ("memory_kb", "descriptors", "threads")),
            ]
            for at in (held[-1][0], held[-1][len(held[-1]) // 5], held[-1][len(held[-1]) // 2], held[-1][-1])
        ]
        yield "What our process holds on to as it goes on (in its last turn):"
        yield ""
        yield from table(["", "memory of its own, kB", "descriptors", "threads"], rows)
        yield from _picture(drawn, "benchmarks-memory.svg", "Memory of the process over the run")


def _where(results: Results) -> Iterable[str]:
    where = results.where
    if not where.phases:
        return
    yield "## Where the time goes"
    yield ""
    yield (
        "Of one cluster among many, in ms. The thread that builds computes, is in the kernel, or waits: for a processor "
        "that others use, or asleep (for a lock, for another thread). Other threads of the process, such as the one that "
        "makes namespaces ahead, compute at the same time (getrusage(2), /proc/thread-self/schedstat)."
    )
    yield ""
    rows = []
    for phase in where.phases:
        asleep = max(0.0, phase["wall"] - phase["user"] - phase["system"] - phase["queued"])
        values = (phase["wall"], phase["user"], phase["system"], phase["queued"], asleep, phase["background"])
        rows.append([str(phase["name"]), number(values[0]), *map(number, values[1:])])
    headings = ["", "on the clock", "computing", "in the kernel", "waiting for a processor", "asleep"]
    yield from table([*headings, "other threads"], rows)
    seen = [("netwarren, the thread that builds", where.first), ("netwarren, other threads", where.others)]
    rows = [
        [name, ", ".join(f"{what} {share:.0%}" for what, share in shares)]
        for name, shares in [
            *seen,
            (FLOOR, where.floor),
            *(
                (f"the kernel, ending what {name} has closed", shares)
                for name, shares in where.cleaner.items()
            ),
        ]
        if shares
    ]
    if rows:
        yield (
            "What they were seen at, some hundred times a second: the kernel's function in which they slept "
            "(proc_pid_wchan(5)). The kernel has one worker for ending namespaces, in the background:"
        )
        yield ""
        yield from table(["", ""], rows)
    for name, calls in where.calls.items():
        if calls:
            yield f"The system calls that all threads of {name} spend most time in, waiting included (`strace -f -c -w`):"
            yield ""
            total = sum(call.seconds for call in calls)
            yield from table(
                ["", "share of these", "calls in a cluster"],
                [
                    [f"`{call.name}`", f"{call.seconds / total:.0%}", number(call.count / where.traced)]
                    for call in calls
                ],
            )


def _suites(results: Results) -> Iterable[str]:
    suites = [suite for suite in results.suites if suite.rate]
    if not suites:
        return
    alone = suites[0]
    yield "## Suites of pytest"
    yield ""
    yield (
        f"{len(alone.tests_ms.turns[0]):,} tests, each with one node and three pods by the fixture `cluster`; set-up, call "
        "and tear-down as pytest itself times them."
    )
    yield ""
    rows = []
    for suite in suites:
        took = suite.tests_ms.summary
        times = "1" if suite is alone else str(ratio(suite.rate, alone.rate))
        values = (suite.rate.summary.mean, took.median, took.mean, took.p95)
        rows.append([suite.name, times, *map(number, values)])
    headings = [
        "",
        "Tests in a second, of one process",
        "tests in a second",
        "a test, ms: median",
        "mean",
        "p95",
    ]
    yield from table(headings, rows)


def _scale(results: Results, drawn: Texts) -> Iterable[str]:
    ours = [size for size in results.scale.get(NETWARREN, ()) if size.ready]
    if not ours:
        return
    yield f"## Pods on {results.nodes} nodes"
    yield ""
    rows = []
    for size in ours:
        pods = statistics.median(size.of_pods.values) / size.pods
        rows.append(
            [
                f"{size.pods:,}",
                *(_beside(results, name, size) for name in (FLOOR, COMMANDS)),
                number(size.ready.summary.median),
                number(pods),
                f"{size.arrived} of {size.sent}",
            ]
        )
    headings = [
        "Pods",
        "Ready, of the floor",
        "`ip` commands, of netwarren",
        "ready, ms",
        "of that for each pod",
    ]
    yield from table([*headings, "packets arrived"], rows)
    largest = max(ours, key=lambda size: size.pods)
    yield (
        f"With {largest.pods:,} pods, each takes {number(statistics.median(largest.own_kb))} kB of our process's memory and "
        f"{number(statistics.median(largest.kernel_kb))} kB of the kernel's (Slab and Percpu of proc_meminfo(5), of the "
        "whole machine). Packets are sent between pods taken at random."
    )
    yield ""
    yield from _picture(drawn, "benchmarks-scale.svg", "Time until a cluster is ready, by its pods")
    yield "### One pod more, one pod less"
    yield ""
    floors = {size.pods: size for size in results.scale.get(FLOOR, ()) if size.add}
    rows = []
    for size in ours:
        if not size.add:
            continue
        floor = floors.get(size.pods)
        add, remove = size.add.summary, size.remove.summary
        rows.append(
            [
                f"{size.pods:,}",
                str(ratio(size.add, floor.add)) if floor else "-",
                *(number(value) for value in (add.median, add.p95)),
                str(ratio(size.remove, floor.remove)) if floor else "-",
                *(number(value) for value in (remove.median, remove.p95)),
            ]
        )
    headings = [
        "Pods there",
        "Adding, of the floor",
        "ms: median",
        "p95",
        "removing, of the floor",
        "ms: median",
        "p95",
    ]
    yield from table(headings, rows)
    yield from _picture(
        drawn, "benchmarks-adding.svg", "Time to add and to remove a pod, by the pods that are there"
    )


def _beside(results: Results, name: str, ours: Size) -> str:
    other = next(
        (size for size in results.scale.get(name, ()) if size.pods == ours.pods and size.ready), None
    )
    if other is None:
        return "-"
    return str(ratio(ours.ready, other.ready) if name == FLOOR else ratio(other.ready, ours.ready))


def _stepping(results: Results) -> Iterable[str]:
    found = results.stepping
    if "with_us" not in found:
        return
    yield "## Stepping"
    yield ""
    yield "In microseconds, of a thread that has stepped into a pod before."
    yield ""
    kinds = [
        ("`with pod:` and back", "with_us", "step_us", "two bare setns(2) in C"),
        ("`pod.run` of an empty function", "run_us", "with_us", "`with pod:`"),
        ("`pod.socket()`", "pod_socket_us", "plain_socket_us", "`socket.socket()`"),
        ("a step of a task in a pod", "pod_task_us", "plain_task_us", "one of a plain task"),
    ]
    rows = []
    for what, name, other, beside in kinds:
        took = found[name].summary
        times = f"{ratio(found[name], found[other])} of {beside}" if other in found else "-"
        rows.append([what, times, number(took.median), number(took.p95)])
    yield from table(["", "Times", "µs: median", "p95"], rows)


def _start_up(results: Results) -> Iterable[str]:
    found = results.start_up
    if not found:
        return
    yield "## Start-up"
    yield ""
    yield "Whole processes; sessions of one test, with no plugin but ours. In brackets: the middle half of the turns."
    yield ""
    rows = []
    for name, series in found.items():
        base = "python" if "pytest" not in name else "pytest"
        took = series.summary
        if name == base:
            rows.append([f"`{name}`", "1", "", number(took.median), number(took.p95)])
        else:
            value = ratio(series, found[base]).value
            rows.append(
                [
                    f"{name}" if "pytest" in name else f"`{name}`",
                    f"{number(value)} of `{base}`",
                    f"{difference(series, found[base])} ms",
                    number(took.median),
                    number(took.p95),
                ]
            )
    yield from table(["", "Times", "more", "ms: median", "p95"], rows)


def _others(results: Results) -> Iterable[str]:
    if "names" in results.others:
        names = results.others["names"]
        yield "## Names"
        yield ""
        yield (
            f"{names['questions']:,} questions by UDP from {names['pods']} pods at once, all answered right: "
            f"{number(names['per_second'])} a second; one took {number(names['median_ms'])} ms in the median and "
            f"{number(names['p95_ms'])} ms in the 95th percentile."
        )
        yield ""
    if "mesh" in results.others:
        medians, of_direct, cost = (results.others["mesh"][key] for key in ("median", "of_direct", "cost"))
        yield "## Node proxies"
        yield ""
        yield (
            "Between two pods of two nodes: by nobody; by the client's node proxy alone; by both, in a tunnel with mutual "
            "TLS. Both proxies run in one process."
        )
        yield ""
        rows = []
        names_of = {"direct": "direct", "plain": "one proxy", "hbone": "two proxies, HBONE"}
        for way, name in names_of.items():
            values = medians[way]
            times = of_direct.get(way, dict.fromkeys(values, 1))
            cells = [
                f"{number(times[key])} ({number(values[key])})"
                for key in ("connections_per_s", "round_trip_us", "gbit_per_s")
            ]
            rows.append([name, *cells])
        headings = ["", "Connections, of direct (in a second)", "round trip (µs)", "bulk (Gbit/s)"]
        yield from table(headings, rows)
        carried = cost["pod_carried_ms"] / cost["pod_not_carried_ms"]
        yield (
            f"A pod that is carried takes {number(carried)} times as long to add as one that is not. Deploying a proxy takes as "
            f"long as adding {number(cost['deploy_ms'] / cost['pod_not_carried_ms'])} pods."
        )
        yield ""
    if "hbone_bulk" in results.others:
        bulk = results.others["hbone_bulk"]
        yield (
            f"A tunnel of HBONE by itself, on loopback, carries {number(bulk['hbone_of_tls'])} times what asyncio's TLS does, "
            f"and {number(bulk['hbone_of_direct'])} times what one process sends another."
        )
        yield ""
    if "mesh_load" in results.others:
        load, pods = results.others["mesh_load"]["load"], results.others["mesh_load"]["pods"]
        yield (
            f"Of {load['connections']:,} connections through both proxies, {load['at_once']:,} open at a time, "
            f"{number(load['lost'])} were lost; one takes {number(load['kib_per_open_connection'])} KiB of both proxies while "
            f"it is open, and {number(load['descriptors_left'])} descriptors stay, of the tunnel that is kept. A pod "
            f"among {pods['pods'] + 10} that a node's proxy carries takes {number(pods['kib_per_pod'])} KiB and "
            f"{number(pods['descriptors_per_pod'])} descriptors."
        )
        yield ""


def _picture(drawn: Texts, name: str, title: str) -> Iterable[str]:
    if name in drawn:
        yield f"![{title}]({name})"
        yield ""
