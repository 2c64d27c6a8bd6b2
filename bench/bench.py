"""`make bench`: one node and three pods, made and closed, by netwarren and by its yardsticks, in one run.

The yardsticks: a C program that asks the kernel for the same things in the same order (`floor.c`), and the
`ip` commands a person would type (`ip_commands.py`). What is run takes turns, so that a machine whose speed
drifts drifts for all; what counts are the ratios.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SKIPPED = 77  # what a yardstick exits with where it cannot run here


@dataclass
class Contestant:
    """Something that builds the topology: how to run it, and what it took, in milliseconds a cluster."""

    name: str
    command: Sequence[str]
    total: list[float] = field(default_factory=list)
    build: list[float] = field(default_factory=list)
    skipped: str = ""

    def run(self, clusters: int, nodes: int, pods: int) -> None:
        if self.skipped:
            return
        words = [*self.command, "--clusters", str(clusters), "--nodes", str(nodes), "--pods", str(pods)]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        if result.returncode == SKIPPED:
            self.skipped = result.stderr.strip()
            return
        if result.returncode:
            raise SystemExit(f"{self.name} failed ({result.returncode}):\n{result.stderr}")
        answer = json.loads(result.stdout)
        self.build += answer["build_ms"]
        self.total += answer["total_ms"]


def contestants() -> tuple[Contestant, Contestant, Contestant]:
    """netwarren, the floor, the `ip` commands."""
    netwarren = Contestant("netwarren", [sys.executable, str(HERE / "clusters.py")])
    floor = Contestant("floor (C)", [str(HERE / "floor"), "--release", "batch:256"])
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        floor.skipped = "no C compiler (cc, gcc or clang) is installed"
    else:
        subprocess.run([compiler, "-O2", "-o", str(HERE / "floor"), str(HERE / "floor.c")], check=True)
    return netwarren, floor, Contestant("ip commands", [sys.executable, str(HERE / "ip_commands.py")])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="turns of a few clusters each")
    parser.add_argument("--sustained", type=int, default=500, help="clusters in one process")
    parser.add_argument("--quick", action="store_true", help="as little as shows that all of it runs")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()
    rounds, sustained = (1, 10) if arguments.quick else (arguments.rounds, arguments.sustained)

    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, uid {os.geteuid()}"
    )
    print(f"load before: {os.getloadavg()[0]:.2f}\n")
    single = contestants()
    for _ in range(rounds):
        for contestant in single:
            contestant.run(5, 1, 3)
            settle()
    report("A few at a time: one node and three pods, made and closed", single)

    long = contestants()
    for contestant in long:
        # A tenth of the `ip` commands: they are the same to the millisecond, and take a minute else.
        contestant.run(sustained if contestant is not long[2] else max(5, sustained // 10), 1, 3)
        settle()
    report(f"Sustained: {sustained} clusters in one process, one after the other", long)

    start_up(rounds)

    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                {
                    kind: {c.name: {"build_ms": c.build, "total_ms": c.total} for c in group}
                    for kind, group in (("single", single), ("sustained", long))
                }
            )
        )
    return 0


def start_up(rounds: int) -> None:
    """What the plugin costs a pytest session, of which no test uses it, and one with a cluster."""
    sessions = {
        "without the plugin": (["-p", "no:netwarren"], "def test(): pass\n"),
        "with it, unused": ([], "def test(): pass\n"),
        "with a first cluster": ([], "def test(cluster): cluster.add_pod('pod')\n"),
    }
    took: dict[str, list[float]] = {name: [] for name in sessions}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(rounds + 1):
            for name, (options, text) in sessions.items():
                file = Path(place, "test_it.py")
                file.write_text(text)
                words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(file)]
                start = time.perf_counter()
                subprocess.run(words, cwd=place, check=True, capture_output=True)
                took[name].append((time.perf_counter() - start) * 1e3)
    print("A whole pytest session of one test")
    bare = statistics.median(took["without the plugin"][1:])
    for name, times in took.items():
        median = statistics.median(times[1:])  # the first filled the disk's cache
        print(f"  {name:<22}{median:>9.1f} ms {median / bare:>6.2f} times the session without")
    print()


def settle(seconds: float = 30.0) -> None:
    """Wait until the kernel has cleaned up after the last one, so that the next does not pay for it.

    A namespace that is made while others are cleaned up waits for that; so one is made until it is quick.
    """
    code = (
        "import ctypes, time; start = time.perf_counter(); "
        "ctypes.CDLL(None).unshare(0x50000000); print(time.perf_counter() - start)"
    )
    deadline = time.monotonic() + seconds
    quick = 0
    while quick < 3 and time.monotonic() < deadline:
        took = float(
            subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, check=True).stdout
        )
        quick = quick + 1 if took < 0.005 else 0
        time.sleep(0.1)


def report(title: str, group: Sequence[Contestant]) -> None:
    """One table; the ratios say how many times as long the others take as netwarren, or it as the floor."""
    print(title)
    print(f"  {'ms':<14}{'n':>6}{'ready p50':>11}{'mean':>9}{'p50':>9}{'p95':>9}{'max':>9}")
    for contestant in group:
        if contestant.skipped:
            print(f"  {contestant.name:<14}skipped: {contestant.skipped}")
            continue
        ordered = sorted(contestant.total)
        print(
            f"  {contestant.name:<14}{len(ordered):>6}{statistics.median(contestant.build):>11.2f}"
            f"{statistics.fmean(ordered):>9.2f}{statistics.median(ordered):>9.2f}"
            f"{ordered[int(len(ordered) * 0.95)]:>9.2f}{ordered[-1]:>9.2f}"
        )
    ours, floor, commands = group
    if not floor.skipped:
        print(f"  netwarren takes {ratio(ours, floor)} of the floor")
    if not commands.skipped:
        print(f"  the ip commands take {ratio(commands, ours)} of netwarren")
    print()


def ratio(one: Contestant, other: Contestant) -> str:
    mean = statistics.fmean(one.total) / statistics.fmean(other.total)
    median = statistics.median(one.total) / statistics.median(other.total)
    return f"{mean:.2f} times the mean and {median:.2f} times the median"


if __name__ == "__main__":
    sys.exit(main())
