"""A process and all that it has started: found, stopped, continued, killed together; proc_pid_stat(5).

Rules: a process belongs by its parent or its session, and whoever was once seen to belong does so for good;
a process is known by its pid and the time of its start, so that a pid given away meanwhile hits nobody.
Does not belong here: whoever else stands in a namespace (see `process`).
"""

import os
import signal
import time
from collections.abc import Iterable
from typing import NamedTuple

from netwarren.kernel import process

_STOPPED = "Tt"
_DEAD = "ZX"
_SETTLE_SECONDS = 1.0


class Member(NamedTuple):
    """One process, as /proc/PID/stat tells of it."""

    pid: int
    state: str
    """A letter: ``R`` and ``S`` and ``D`` (it runs), ``T`` (stopped), ``Z`` (dead, not waited for), ..."""
    parent: int
    session: int
    start: int
    """In clock ticks since the machine's start."""


def parse_stat(text: str) -> Member:
    """A `Member` from the text of /proc/PID/stat; the name in it may have spaces and parentheses."""
    pid, rest = text.split(" (", 1)
    words = rest[rest.rindex(")") + 2 :].split()
    return Member(int(pid), words[0], int(words[1]), int(words[3]), int(words[19]))


def look(pid: int) -> Member | None:
    """The process ``pid``, None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return parse_stat(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def everybody() -> dict[int, Member]:
    """All processes that /proc shows, this one apart, by pid."""
    own = os.getpid()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != own)
    return {pid: found for pid in pids if (found := look(pid)) is not None}


def socket_inodes(pids: Iterable[int]) -> tuple[set[int], bool]:
    """The inodes of the sockets that ``pids`` have open, and whether all of them let us look."""
    found: set[int] = set()
    complete = True
    for pid in pids:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                try:
                    target = os.readlink(f"/proc/{pid}/fd/{fd}")
                except FileNotFoundError:
                    continue
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            complete = False
    return found, complete


class Tree:
    """The process ``pid`` and all it has started, in whatever session or process group.

    ``inode`` is the network namespace it was started in. A process that took a session of its own and lost
    its parent before anybody looked is not found.
    """

    def __init__(self, pid: int, inode: int) -> None:
        self.pid = pid
        self._inode = inode
        first = look(pid)
        self.began = first.start if first is not None else 0
        """When it was started, in clock ticks since the machine's start; 0 where /proc does not show it."""
        self._known = {pid: first.start} if first is not None else {}

    def members(self, table: dict[int, Member] | None = None) -> list[Member]:
        """Those that live, the first one first; ``table`` is `everybody`, if somebody has just asked."""
        if table is None:
            table = everybody()
        found = {pid for pid, start in self._known.items() if pid in table and table[pid].start == start}
        given_away = self.pid in table and self.pid not in found
        mine = {self.pid} - found if not given_away else set()
        while more := {
            each.pid
            for each in table.values()
            if each.pid not in found
            and (
                each.parent in found
                or each.session in found
                or (each.session in mine and self._stands_here(each.pid))
            )
        }:
            found |= more
        self._known = {pid: table[pid].start for pid in found}
        return [table[pid] for pid in sorted(found, key=self.pid.__ne__) if table[pid].state not in _DEAD]

    def stop(self) -> None:
        """SIGSTOP to all of them, and wait until they have stopped."""
        self._send_stop()
        deadline = time.monotonic() + _SETTLE_SECONDS
        while any(each.state not in _STOPPED for each in self.members()) and time.monotonic() < deadline:
            os.sched_yield()

    def resume(self) -> None:
        """SIGCONT to all of them."""
        for each in self.members():
            _send(each, signal.SIGCONT)

    def kill(self, seconds: float = 5.0) -> None:
        """SIGKILL to all of them, and wait for their end; ``seconds`` is for one that sleeps in the kernel."""
        deadline = time.monotonic() + seconds
        while members := self._send_stop():  # whoever is stopped starts nobody that we would miss
            handles = [handle for each in members if (handle := _send(each, signal.SIGKILL, keep=True)) >= 0]
            left = deadline - time.monotonic()
            process.wait_all(handles, left)
            if left <= 0:
                return

    def _send_stop(self) -> list[Member]:
        """SIGSTOP, until nobody turns up who has not got it: fork(2) does not end under a pending signal."""
        told: set[tuple[int, int]] = set()
        members = self.members()
        while new := [each for each in members if (each.pid, each.start) not in told]:
            for each in new:
                _send(each, signal.SIGSTOP)
                told.add((each.pid, each.start))
            members = self.members()
        return members

    def _stands_here(self, pid: int) -> bool:
        """Of a session whose leader is gone: whether it is ours, and not that of a later one of that pid."""
        try:
            return os.stat(f"/proc/{pid}/ns/net").st_ino == self._inode
        except OSError:
            return False


def _send(member: Member, number: int, *, keep: bool = False) -> int:
    """Send a signal; returns the process's pidfd with ``keep``, and -1 else or where there is none."""
    try:
        handle = os.pidfd_open(member.pid)
    except OSError:
        return -1
    try:
        now = look(member.pid)
        if now is not None and now.start == member.start:
            signal.pidfd_send_signal(handle, number)
            if keep:
                handle, kept = -1, handle
                return kept
    except OSError:
        pass
    finally:
        if handle >= 0:
            os.close(handle)
    return -1
