"""Processes: children of this one, and whoever stands in a network namespace; proc(5), pidfd_open(2).

Rules: only what /proc says; a process that is gone meanwhile is no error; nothing but SIGKILL is sent.
Does not belong here: programs as users know them (see `netwarren.runtime.program`), what one process has
started (see `process_tree`).
"""

import os
import resource
import select
import signal
import time
from collections.abc import Collection

from netwarren.kernel.syscall import PR_SET_PDEATHSIG, libc


def threads() -> int:
    """How many threads this process has, those that Python does not know of included."""
    return len(os.listdir("/proc/self/task"))


def children() -> set[int] | None:
    """The pids of this process's children, whichever thread made them; None where nobody tells.

    Needs CONFIG_PROC_CHILDREN, as all large distributions have it; proc_pid_task(5).
    """
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()  # which is most often, and found out in a fiftieth of the time
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as pids:
                found.update(map(int, pids.read().split()))
        except FileNotFoundError:
            if os.path.exists(f"/proc/self/task/{task}"):
                return None
    return found


def umask() -> int:
    """The file mode creation mask of the calling thread, which umask(2) would only tell by changing it."""
    with open("/proc/thread-self/status", "rb") as lines:
        for line in lines:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    raise AssertionError("Linux has told the umask since 4.7")


def reaped() -> int:
    """A number that grows with every child of this process that ends and is waited for; getrusage(2)."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


def standing_in(inodes: Collection[int]) -> list[int]:
    """The pids, this process apart, whose network namespace is one of ``inodes`` (``ip netns pids``).

    Processes of other users are not ours to see and are left out.
    """
    found = []
    own = os.getpid()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != own:
            try:
                inode = os.stat(f"/proc/{entry}/ns/net").st_ino
            except OSError:
                continue
            if inode in inodes:
                found.append(int(entry))
    return found


def kill_standing_in(inodes: Collection[int], seconds: float = 5.0) -> list[int]:
    """End every process standing in one of ``inodes`` with SIGKILL, children of theirs included.

    Returns those that were still there after ``seconds``; none, unless one sleeps in the kernel.
    """
    deadline = time.monotonic() + seconds
    while pids := standing_in(inodes):
        handles = []
        for pid in pids:
            try:
                handle = os.pidfd_open(pid)
            except OSError:
                continue
            handles.append(handle)
            try:
                # The pid may have been given away since; its namespace tells.
                if os.stat(f"/proc/{pid}/ns/net").st_ino in inodes:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            except OSError:
                continue
        left = deadline - time.monotonic()
        wait_all(handles, left)
        if left <= 0:
            return pids
    return []


def wait_all(handles: list[int], seconds: float) -> None:
    """Wait for the end of the processes behind pidfds, for ``seconds`` at most, and close those."""
    poller = select.poll()
    for handle in handles:
        poller.register(handle, select.POLLIN)
    waiting = set(handles)
    deadline = time.monotonic() + seconds
    while waiting and (left := deadline - time.monotonic()) > 0:
        for handle, _event in poller.poll(left * 1000):
            poller.unregister(handle)
            waiting.discard(handle)
    for handle in handles:
        os.close(handle)


# Looked up when this module is loaded: between fork and exec nothing may be imported or allocated anew.
_prctl = libc().prctl


def die_with_parent() -> None:
    """Have the kernel send SIGKILL to this process when the thread that made it ends; prctl(2).

    Made to run between fork and exec, so it does not raise.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
