"""Where a process's threads are: what each computes or waits for in the kernel, looked at many times a second.

By /proc/PID/task/TID/stat and wchan (proc_pid_wchan(5)), and by strace(1) where that is installed. And the kernel's
worker that ends namespaces in the background (`cleanup_net` in net/core/net_namespace.c, in the work queue "netns"),
whose name says when it is at it.
Rules: looks from outside, so that who is looked at does nothing for it; says what it could not see.
Does not belong here: who is looked at, for how long.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

EVERY = 0.002
"""Seconds between two looks."""

COMPUTING = "on a processor, or waiting for one"
RESTING = "nothing to end"
HIDDEN = "asleep, and not seen in what"


@dataclass
class Watch:
    """How often the first thread and the others of a process, and the kernel's worker, were seen at what."""

    first: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    cleaner: Counter[str] = field(default_factory=Counter)
    skipped: str = ""

    def __call__(self, pid: int) -> None:
        """Look at ``pid`` until it ends."""
        looks = 0
        workers: list[int] = []
        while True:
            if looks % 50 == 0:
                workers = kernel_workers()
            looks += 1
            if workers:
                self.cleaner[cleaning(workers)] += 1
            try:
                # In /proc, a process that has ended and is not waited for has its first thread as a zombie.
                threads = [int(each) for each in os.listdir(f"/proc/{pid}/task")]
                for thread in threads:
                    seen = where(pid, thread)
                    if seen is not None:
                        (self.first if thread == pid else self.others)[seen] += 1
                if where(pid, pid) is None:
                    return
            except PermissionError:
                self.skipped = "the kernel does not let this user see where its own processes wait"
                return
            except OSError:
                return
            time.sleep(EVERY)

    def shares(self, of: str, most: int = 6) -> list[tuple[str, float]]:
        """What ``first``, ``others`` or ``cleaner`` were at most often, with its share of all looks."""
        seen: Counter[str] = getattr(self, of)
        return [(what, count / seen.total()) for what, count in seen.most_common(most)]


def where(pid: int, thread: int) -> str | None:
    """What the thread is at: computing, or the kernel's function in which it sleeps; None where it has ended."""
    try:
        with open(f"/proc/{pid}/task/{thread}/stat") as stat:
            state = stat.read().rpartition(")")[2].split()[0]
        if state in "ZX":
            return None
        with open(f"/proc/{pid}/task/{thread}/wchan") as wchan:
            function = wchan.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if state == "R":
        return COMPUTING
    return function if function not in ("", "0") else HIDDEN


def kernel_workers() -> list[int]:
    """The process ids of workers that may do the kernel's work of any processor; none in a container."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _read(f"/proc/{entry}/comm").startswith("kworker/u"):
            found.append(int(entry))
    return found


def cleaning(workers: Sequence[int]) -> str:
    """What the worker among ``workers`` that ends namespaces is at, as `where` says it."""
    for worker in workers:
        # "kworker/u8:1+netns" is at it; "kworker/u8:1-netns" was.
        if _read(f"/proc/{worker}/comm").rstrip().endswith("+netns"):
            return where(worker, worker) or RESTING
    return RESTING


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


@dataclass
class Call:
    """What strace counted of one system call."""

    name: str
    seconds: float
    count: int


def system_calls(command: Sequence[str], clusters: int, cwd: Path, most: int = 8) -> tuple[list[Call], str]:
    """The system calls that ``command``'s threads spend most time in for ``clusters`` clusters, by ``strace -f -c -w``.

    Those of its start and its first cluster are taken off. The time is on the clock, waiting included, and strace
    makes each call slower by itself. Where it cannot be done: no calls, and the reason.
    """
    strace = shutil.which("strace")
    if strace is None:
        return [], "strace is not installed (Debian: apt-get install strace)"
    first, reason = _traced(strace, [*command, "--clusters", "1"], cwd)
    more, reason = (
        _traced(strace, [*command, "--clusters", str(1 + clusters)], cwd) if not reason else ([], reason)
    )
    before = {call.name: call for call in first}
    none = Call("", 0.0, 0)
    calls = [
        Call(
            call.name,
            max(0.0, call.seconds - before.get(call.name, none).seconds),
            max(0, call.count - before.get(call.name, none).count),
        )
        for call in more
    ]
    calls.sort(key=lambda call: -call.seconds)
    return [call for call in calls if call.count >= clusters][:most], reason


def _traced(strace: str, command: Sequence[str], cwd: Path) -> tuple[list[Call], str]:
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as output:
        words = [strace, "-f", "-c", "-w", "-o", output.name, *command]
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return [], f"strace ended with status {done.returncode}: {last}"
        return parse(output.read()), ""


def parse(table: str) -> list[Call]:
    """The lines of ``strace -c``: % time, seconds, usecs/call, calls, [errors,] syscall."""
    calls = []
    for line in table.splitlines():
        words = line.split()
        if len(words) in (5, 6) and words[0][0].isdigit() and words[-1] != "total":
            calls.append(Call(words[-1], float(words[1]), int(words[3])))
    return calls
