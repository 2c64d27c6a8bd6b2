"""The measurements: what takes turns with what, how often, and in which order.

Rules: contestants take turns, so that a machine whose speed drifts drifts for all; the first cluster of each
process, which loads and compiles, is not counted; between turns the kernel is let finish cleaning up.
Does not belong here: what the figures are held against (see `marks`), how they are shown (see `report`).
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench import waiting, yardsticks
from bench.figures import Series
from bench.machine import Noise, describe, settle, stolen_seconds
from bench.results import Built, Results, Size, Where
from bench.startup import start_ups
from bench.suite import suites
from bench.yardsticks import Contestant, Outcome

PAUSE = 20.0
"""Ms that a test of `Results.paused` does something else: as much as a short one that talks to a pod."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    quick: bool = False
    single_turns: int = 15
    single: int = 6
    """Clusters in a turn, of which the first does not count."""
    sustained_turns: int = 2
    sustained: int = 1000
    suite_turns: int = 2
    suite: int = 1000
    workers: tuple[int, ...] = (2, 4)
    nodes: int = 50
    pods: tuple[int, ...] = (10, 30, 100, 300, 1000)
    pods_turns: int = 3
    pods_once: tuple[int, ...] = ()
    """Sizes that are measured in one turn only."""
    ip_pods: tuple[int, ...] = (10, 100)
    adding: int = 100
    stepping: int = 50
    start_ups: int = 15
    traced: int = 30
    proxies: tuple[str, ...] = ("--rounds", "3", "--mib", "128")
    bulk: int = 128
    """MiB in a round."""
    load: tuple[str, ...] = ()
    """Of connections and pods at once, as many as `mesh_load` has by itself."""
    questions: int = 200


QUICK = Sizes(
    quick=True,
    single_turns=1,
    single=3,
    sustained_turns=1,
    sustained=100,
    suite_turns=1,
    suite=20,
    workers=(2,),
    nodes=3,
    pods=(3, 10),
    pods_turns=1,
    ip_pods=(3,),
    adding=5,
    stepping=2,
    start_ups=1,
    traced=3,
    proxies=("--rounds", "1", "--connections", "5", "--trips", "20", "--mib", "2"),
    bulk=4,
    load=("--connections", "60", "--at-once", "20", "--pods", "5"),
    questions=2,
)


def measure(sizes: Sizes, say: Callable[[str], None]) -> Results:
    """Everything, in one run; ``say`` is told what is being measured."""
    results = Results(describe(), sizes.quick, time.strftime("%Y-%m-%d"))
    noise, start, stolen = Noise(), time.monotonic(), stolen_seconds()
    ours, floor = yardsticks.netwarren(), yardsticks.floor()
    commands, mininet = yardsticks.ip_commands(), yardsticks.mininet()
    everybody = (ours, floor, commands, mininet)
    parts: dict[str, Callable[[], None]] = {
        "one node and three pods": lambda: _single(results, everybody, sizes),
        "the same after a pause": lambda: _paused(results, (ours, floor), sizes),
        f"{sizes.sustained} clusters in one process": lambda: _sustained(results, ours, floor, sizes),
        "where the time goes": lambda: _where(results, ours, floor, sizes),
        f"suites of {sizes.suite} tests": lambda: _suites(results, sizes),
        f"clusters of {sizes.nodes} nodes": lambda: _scale(results, floor, commands, sizes),
        "stepping": lambda: _stepping(results, floor, sizes),
        "start-up": lambda: results.start_up.update(start_ups(sizes.start_ups)),
        "names and node proxies": lambda: _others(results, sizes),
    }
    noise.look()
    for title, part in parts.items():
        say(title)
        part()
        noise.look()
    results.skipped += [f"{each.name}: {each.skipped}" for each in everybody if each.skipped]
    results.seconds = time.monotonic() - start
    noise.stolen = (stolen_seconds() - stolen) / results.seconds
    results.noise = {
        "spread": noise.spread,
        "loads": noise.loads,
        "stolen": noise.stolen,
        "work_ms": noise.work_ms,
    }
    return results


def _turn(kept: dict[str, Built], contestant: Contestant, *options: object, first: int = 1) -> Outcome | None:
    outcome = contestant.run(*options)
    built = kept.setdefault(contestant.name, Built())
    built.skipped = contestant.skipped
    if outcome is not None:
        built.ready.turns.append(outcome.series("build_ms")[first:])
        built.whole.turns.append(outcome.series("total_ms")[first:])
        clusters = len(outcome.series("build_ms"))
        done = len(built.ready.turns)
        built.user += (outcome.user_ms / clusters - built.user) / done
        built.system += (outcome.system_ms / clusters - built.system) / done
        settle()
    return outcome


def _single(results: Results, everybody: Iterable[Contestant], sizes: Sizes) -> None:
    for _ in range(sizes.single_turns):
        for contestant in everybody:
            _turn(results.single, contestant, "--clusters", sizes.single)


def _paused(results: Results, pair: Iterable[Contestant], sizes: Sizes) -> None:
    results.pause = PAUSE
    for _ in range(sizes.single_turns):
        for contestant in pair:
            options = ("--clusters", sizes.single * 4, "--pause", int(PAUSE))
            # netwarren learns how many namespaces to make ahead from its first cluster.
            _turn(results.paused, contestant, *options, first=2)


def _sustained(results: Results, ours: Contestant, floor: Contestant, sizes: Sizes) -> None:
    for _ in range(sizes.sustained_turns):
        for contestant in (ours, floor):
            outcome = _turn(results.sustained, contestant, "--clusters", sizes.sustained)
            if outcome is not None and contestant is ours:
                results.held.append(outcome.answer["held"])


def _where(results: Results, ours: Contestant, floor: Contestant, sizes: Sizes) -> None:
    # In turns of their own: who is looked at is slowed down a little.
    clusters = max(20, sizes.sustained // 4)
    watches = {contestant.name: waiting.Watch() for contestant in (ours, floor)}
    found = {
        contestant.name: contestant.run("--clusters", clusters, watch=watches[contestant.name])
        for contestant in (ours, floor)
    }
    where = Where(traced=sizes.traced)
    outcome = found[ours.name]
    if outcome is not None:
        where.phases = [
            {name: value if isinstance(value, str) else value / clusters for name, value in phase.items()}
            for phase in outcome.answer["phases"]
        ]
    where.first, where.others = watches[ours.name].shares("first"), watches[ours.name].shares("others")
    where.floor = watches[floor.name].shares("first")
    where.cleaner = {name: watch.shares("cleaner", 5) for name, watch in watches.items() if watch.cleaner}
    if not where.cleaner:
        results.skipped.append(
            "looks at the kernel's cleaning up: its workers cannot be seen from here (a container)"
        )
    results.skipped += [
        f"looks at {name}: {watch.skipped}" for name, watch in watches.items() if watch.skipped
    ]
    calls = {}
    for contestant in (ours, floor):
        if not contestant.skipped:
            command = contestant.command
            calls[contestant.name], reason = waiting.system_calls(command, sizes.traced, yardsticks.ROOT)
            if reason:
                results.skipped.append(f"system calls of {contestant.name}: {reason}")
    where.calls = calls
    results.where = where
    settle()


def _suites(results: Results, sizes: Sizes) -> None:
    results.suites = suites(sizes.workers)
    for _ in range(sizes.suite_turns):
        for suite in results.suites:
            suite.run(sizes.suite)
            settle()


def _scale(results: Results, floor: Contestant, commands: Contestant, sizes: Sizes) -> None:
    ours = yardsticks.netwarren("scale")
    results.nodes = sizes.nodes
    for turn in range(sizes.pods_turns):
        for pods in (*sizes.pods, *(() if turn else sizes.pods_once)):
            for contestant in (ours, floor):
                options = ("--nodes", sizes.nodes, "--spread", pods, "--adding", sizes.adding)
                counted = ("--clusters", 1) if contestant is floor else ()
                _keep_size(results, contestant, pods, contestant.run(*options, *counted))
    for pods in sizes.ip_pods:
        options = ("--nodes", sizes.nodes, "--spread", pods, "--clusters", 1)
        _keep_size(results, commands, pods, commands.run(*options))


def _keep_size(results: Results, contestant: Contestant, pods: int, outcome: Outcome | None) -> None:
    kept = results.scale.setdefault(contestant.name, [])
    size = next((each for each in kept if each.pods == pods), None)
    if size is None:
        kept.append(size := Size(pods))
    if outcome is None:
        size.skipped = contestant.skipped
        return
    for series, name in (
        (size.ready, "build_ms"),
        (size.of_pods, "pods_ms"),
        (size.add, "add_ms"),
        (size.remove, "remove_ms"),
        (size.close, "close_ms"),
    ):
        if values := outcome.series(name):
            series.turns.append(values)
    answer = outcome.answer
    if "own_kb" in answer:
        size.own_kb.append(answer["own_kb"])
        size.kernel_kb.append(answer["kernel_kb"])
        size.sent += answer["sent"]
        size.arrived += answer["arrived"]
    settle()


def _stepping(results: Results, floor: Contestant, sizes: Sizes) -> None:
    ours = yardsticks.netwarren("stepping")
    for _ in range(3):
        for contestant, options in (
            (ours, ("--batches", sizes.stepping)),
            (floor, ("--clusters", 1, "--steps", sizes.stepping)),
        ):
            outcome = contestant.run(*options)
            if outcome is not None:
                for name, values in outcome.answer.items():
                    if name.endswith("_us"):
                        results.stepping.setdefault(name, Series()).turns.append(values)


def _others(results: Results, sizes: Sizes) -> None:
    for name, options in (
        ("names", ["--each", str(sizes.questions)]),
        ("mesh", sizes.proxies),
        ("hbone_bulk", ["--mib", str(sizes.bulk)]),
        ("mesh_load", sizes.load),
    ):
        found, reason = _program(name, options)
        if reason:
            results.skipped.append(f"bench/{name}.py: {reason}")
        else:
            results.others[name] = found


def _program(name: str, options: Sequence[str]) -> tuple[dict[str, object], str]:
    words = [sys.executable, "-m", f"bench.{name}", *options]
    done = subprocess.run(words, cwd=yardsticks.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        if "netwarren[mesh]" in last:
            return {}, last
        raise SystemExit(f"{' '.join(words)}\nfailed with status {done.returncode}:\n{done.stderr}")
    found: dict[str, object] = json.loads(done.stdout)
    return found, ""
