"""What of the host a session could have changed: interfaces, names, mounts, files, processes.

Rules: other tests and other people share the machine, so what is told by a name or a mark of the session
is looked for by it, and only the rest is compared as a whole; a wait for the end of processes has a bound.
Does not belong here: sessions.
"""

import contextlib
import os
import select
import time
from dataclasses import dataclass

MARK = "NETWARREN_TEST_MARK"


@dataclass(frozen=True)
class Host:
    """The host at one moment, as this process sees it."""

    interfaces: frozenset[str]
    mounts: tuple[str, ...]
    names: frozenset[str]
    files: frozenset[str]

    @classmethod
    def now(cls) -> "Host":
        with open("/proc/net/dev") as devices:
            interfaces = frozenset(line.split(":")[0].strip() for line in list(devices)[2:])
        with open("/proc/self/mountinfo") as mountinfo:
            # Those of the sandbox's own /run are of other workers, which each lay a resolv.conf with their first cluster.
            mounts = tuple(sorted(line for line in mountinfo if " - tmpfs netwarren " not in line))
        files = {
            f"{place}/{name}"
            for place in ("/dev/shm", "/run")  # sessions are given a /tmp of their own to look at
            if os.path.isdir(place)
            for name in os.listdir(place)
            # In /run, which is this sandbox's, other workers have directories; a session lays a /run of its own over it.
            if "netwarren" in name and not (place == "/run" and name.startswith("netwarren-"))
        }
        return cls(interfaces, mounts, frozenset(_names()), frozenset(files))

    def settled(self, seconds: float = 10.0) -> "Host":
        """The host now; as it was at ``self``, if it becomes so soon.

        Other tests' workers, in this sandbox, may just be at a mount.
        """
        deadline = time.monotonic() + seconds
        while (now := Host.now()) != self and time.monotonic() < deadline:
            time.sleep(0.05)  # there is no event for all of this
        return now


def _names() -> set[str]:
    """The entries of /run/netns that are no links: links are netwarren's, of any session in this sandbox."""
    try:
        with os.scandir("/run/netns") as entries:  # which tells without another look, when one may be gone
            return {entry.name for entry in entries if not entry.is_symlink()}
    except OSError:
        return set()


def marked(mark: str) -> dict[int, str]:
    """The processes, zombies apart, that have `MARK` ``mark`` in their environment: pid and command line."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/environ", "rb") as environ:
                if f"{MARK}={mark}".encode() not in environ.read().split(b"\0"):
                    continue
            with open(f"/proc/{entry}/cmdline", "rb") as cmdline:
                found[int(entry)] = cmdline.read().replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def wait_until_none_is_left(mark: str, seconds: float = 30.0) -> None:
    """Wait for the end of every process marked ``mark``; raises AssertionError where some go on."""
    deadline = time.monotonic() + seconds
    while left := marked(mark):
        assert time.monotonic() < deadline, f"these are left: {left}"
        for pid in left:
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(pid)
                try:
                    select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
                finally:
                    os.close(handle)
