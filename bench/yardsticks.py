"""Who is compared: netwarren, a C program, the `ip` commands, Mininet; each a program that prints its times.

The C program (`floor.c`) asks the kernel for the same things in the same order: the least that a cluster can
cost. The `ip` commands (`ip_commands.py`) are those a person would type. Mininet's network (`mininet_network.py`)
is a smaller one.
Rules: one process a turn; a yardstick that cannot run here says why and what to install, and is left out.
Does not belong here: how often, how large, in which order (see `measure`).
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SKIPPED = 77
"""The exit status of a yardstick that cannot run here; the reason is on its standard error."""


@dataclass(frozen=True)
class Outcome:
    """What one turn printed, and what it used of the processor, its children included, in ms."""

    answer: dict[str, Any]
    wall_ms: float
    user_ms: float
    system_ms: float

    def series(self, name: str) -> list[float]:
        """The times that are called ``name``; none where the program does not print them."""
        return [float(each) for each in self.answer.get(name, ())]


@dataclass
class Contestant:
    """A program that builds clusters: how to run it, or why it cannot be run."""

    name: str
    command: Sequence[str]
    skipped: str = ""

    def run(self, *options: object, watch: Callable[[int], None] | None = None) -> Outcome | None:
        """One turn, with ``options`` on its command line; None where it cannot run here.

        ``watch`` is called on a thread, with the process id, while it runs. Raises SystemExit where it fails.
        """
        if self.skipped:
            return None
        words = [*self.command, *map(str, options)]
        start, before = time.perf_counter(), os.times()
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if watch is not None:
            threading.Thread(target=watch, args=(process.pid,), daemon=True).start()
        output, errors = process.communicate()
        wall, after = time.perf_counter() - start, os.times()
        if process.returncode == SKIPPED:
            self.skipped = errors.strip().partition("skipped: ")[2] or errors.strip()
            return None
        if process.returncode:
            raise SystemExit(f"{' '.join(words)}\nfailed with status {process.returncode}:\n{errors}")
        user = after.children_user - before.children_user
        system = after.children_system - before.children_system
        return Outcome(json.loads(output), wall * 1e3, user * 1e3, system * 1e3)


def netwarren(program: str = "clusters") -> Contestant:
    """Ours, by the module ``program`` of this package."""
    return Contestant("netwarren", [sys.executable, "-m", f"bench.{program}"])


def floor() -> Contestant:
    """The C program, compiled here and now."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    program = HERE / "floor"
    contestant = Contestant("floor (C)", [str(program), "--release", "batch:256"])
    if compiler is None:
        contestant.skipped = (
            "no C compiler (cc, gcc or clang) is installed (Debian: apt-get install gcc libc6-dev)"
        )
        return contestant
    words = [compiler, "-O2", "-o", str(program), str(HERE / "floor.c")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["without a word"]
        contestant.skipped = f"{compiler} could not compile bench/floor.c: {reason[0]}"
    return contestant


def ip_commands() -> Contestant:
    """The `ip` commands."""
    return Contestant("ip commands", [sys.executable, str(HERE / "ip_commands.py")])


def mininet() -> Contestant:
    """Mininet, by the interpreter that Debian installs it for."""
    python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
    return Contestant("Mininet", [python, str(HERE / "mininet_network.py")])
